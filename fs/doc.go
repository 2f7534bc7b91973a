// Package fs is the FUSE front of a live volume: it translates the kernel's requests for package cow, and sends those for
// snapshots to a Browser.
//
// # Node ids
//
// A node id is the backing's inode number, so a server that takes a mount over needs no table of its own. The root's id is 1,
// as FUSE has it; st_ino is the real number there too. Ids with bit 63 set belong to the Browser; an inode of the backing
// whose number has that bit can't be shown (EOVERFLOW). File handles carry nothing: what a request needs is in its node id
// and flags. A directory's handle names a stream, and another one serves if this process doesn't know it.
//
// # What the kernel does
//
// Permissions (default_permissions, with ACLs), locks, sticky directories, the umask's exception for default ACLs, setgid at
// create and chmod: the kernel decides, with all groups of the caller. In the write-back mode it also owns the size, mtime and
// ctime of regular files, and O_APPEND; a file opened O_WRONLY is read as well, to fill pages.
//
// # What the kernel may remember
//
// The mount is the only writer, so names (those that don't exist too), attributes and pages are kept for a day. One thing
// changes unseen by the kernel: st_blocks, when dirty pages are written back. While a file is open for writing, its
// attributes are good for a second only, and an fsync that changed st_blocks ends them at once.
//
// # Dirty pages of the kernel
//
// Two requests must see them on the backing first: a snapshot (Flusher), and lseek with SEEK_DATA or SEEK_HOLE, for which the
// kernel holds the inode's lock, so that only what takes no such lock (sync_file_range, or an invalidation) may be used.
// An fsync that comes from one of the Flusher's own threads only has to bring the pages here; it flushes no disk.
//
// # Logs
//
// In the write-back mode an fdatasync is WRITE, SETATTR of the kernel's mtime, and FSYNC. For files that are written and synced in
// turn, the backing's fdatasync runs while the last two are on their way, and the mtime is set later: see syncAhead.
package fs
