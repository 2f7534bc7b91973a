// Package browse shows snapshots as directories: MOUNT/.snapshots/NAME/….
//
// # Node ids
//
// An id carries all that is needed to serve it, so nothing has to be remembered about what the kernel knows, and a server that took over a mount serves
// every id that its predecessor gave out:
//
//	bit 63       1: a node of this package; the live volume's ids have 0
//	bits 48-62   the low 15 bits of the snapshot's Seq, never 0 and unique among the snapshots of a catalogue
//	bits 0-47    the inode number in the snapshot
//
// 1<<63 alone is the directory .snapshots (RootID). st_ino is the node id, so that no program takes a live file and its copy in a snapshot for
// one. The generation is made of the whole Seq and the inode's: when the 15 bits are used again, the kernel drops what it had cached.
//
// # What is seen
//
// .snapshots (mode 0555, owner root, as ZFS shows .zfs) lists complete and pending snapshots by name. Looking up a pending one waits for its seal; a
// signal ends the wait with EINTR. A snapshot's own root has the mode and owner of the volume's root, so who may enter is what it was.
// Attributes are those stored; there is no access time, so the time of modification stands in for it. Extended attributes are shown as they were, POSIX ACLs included;
// names in trusted. are listed for root only, as other filesystems do.
//
// Nothing can be modified: EROFS. ENOSYS is never answered, since the kernel would stop sending that operation for the live volume too.
//
// Nothing changes either, so attributes, entries, pages and directory listings stay in the kernel's cache. Only names in .snapshots time out, after a
// second, and Changed drops those of deleted snapshots at once. A node of a deleted snapshot answers ESTALE.
//
// Damage in the store is EIO, and one log line that names the snapshot, the path and what is damaged. Bytes that can't be verified are not served.
//
// # Alone
//
// An Alone is the tree mounted by itself, of a copy that another machine writes to: its root is node 1 for the kernel. It differs in this: who lists the root or looks up a name
// that isn't there has the source asked for newer snapshots; nodes of a deleted snapshot stay readable while it is open here; what can't be read because the copy is away is EIO
// without a line in the log, since the source has told that once.
//
// # Lock order
//
//	FS.mu        open snapshots and their users; nothing is read or sent to the kernel under it
//	FS.dirs.mu   open directories
//	FS.told.mu   damage that has been logged
//
// None is held while another is taken.
package browse
