// Package backing is the backing directory of a volume, by inode number.
//
// # Reaching an inode
//
// Everything starts at one directory fd, opened before anything was mounted. A known inode (a node) has the name it was
// last seen under: (parent inode, name). Its file descriptor is opened step by step from the nearest ancestor that has one
// (openat2 with RESOLVE_BENEATH, NO_SYMLINKS, NO_MAGICLINKS, NO_XDEV), so no path string exists, no PATH_MAX applies, and
// nothing above or beside the volume can be reached. What was opened is compared with the inode number that was asked for.
// Descriptors are cached, bounded, and closed least recently used first. An inode that lost its last known name keeps one
// descriptor (a pin) for as long as the kernel knows it.
//
// Three kinds of descriptor exist: path (O_PATH, good for attributes and as a base), read (O_RDONLY; of a directory too) and
// write (O_RDWR). Reads prefer a write descriptor that exists, and never need one, so that files of a read-only
// filesystem and running executables can be read. FIFOs, sockets and devices are never opened but by path.
//
// # The node table: STATE/nodes
//
// What the kernel knows must survive the process: a directory of segment files, each a fixed 4 MiB, allocated before it is mapped
// (so that a full disk is an error at that moment and never a SIGBUS later; where the disk fails, package mapped goes on in memory), filled with records from the front:
//
//	 0  u32  length of the record, multiple of 8; 0: end of the segment
//	 4  u32  CRC-32C over ino, gen, parent, type, name length and name
//	 8  u64  inode number
//	16  u64  generation
//	24  u64  parent's inode number, 0: no known name
//	32  u64  references the kernel holds (mutable)
//	40  u32  opens for reading (mutable)
//	44  u32  opens for writing (mutable)
//	48  u32  file type (S_IFMT bits)
//	52  u16  length of the name
//	54  u8   dead (mutable): superseded or dropped
//	55  u8   format version, 1
//	56  …    name, zero padded to 8 bytes
//
// Integers are in the machine's byte order: the table is read by the same machine only. The length is stored last, so a
// process that dies while writing leaves no half record. Mutable fields change in place. A server that takes over goes on with the segments as they
// are, and makes a node of a record when it is asked for, since clients wait for it: so what it costs to take over depends
// little on how many inodes the kernel knows. Until the last node is made, none is dropped and no segment removed. Records move out of segments that
// are mostly dead, then the segment is removed. An inode with several known names has a record each, and the counts are in one
// of them. A record whose references are 0 is a hint: it lets a file handle
// (open_by_handle_at) of an earlier mount be resolved. If a segment can't be allocated, records live in memory only, and
// a restarted server won't know these inodes; the volume stays writable.
//
// # Credentials
//
// A server that runs as root creates on behalf of the caller: setfsuid and setfsgid on a locked thread, with root's
// capabilities kept, because the kernel has already checked permissions (default_permissions) with all of the caller's
// groups. Open sets the process's umask to 0; the caller's umask is applied where the parent has no default ACL.
//
// # Lock order
//
//	compacting: only tried
//	names (Tree.names): shared to resolve or create, exclusive to remove or move a name
//	    shard of the node map
//	        node
//	            node table
//	descriptor cache: alone
//
// All methods are safe for concurrent use. Errors are, or unwrap to, syscall.Errno.
package backing
