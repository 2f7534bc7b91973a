package cow

import "graphvol/fs/cow/backing"

// What changes nothing goes to the backing as it is and never meets the gate.

// Root is the inode number of the volume's root directory.
func (v *Volume) Root() uint64 { return v.tree.Root() }

// Dev is the backing's device number, as in st_dev.
func (v *Volume) Dev() uint64 { return v.tree.Dev() }

// Lookup finds name in dir and adds one kernel reference to what it finds.
func (v *Volume) Lookup(dir uint64, name string) (Attr, error) { return v.tree.Lookup(dir, name) }

// Forget takes n kernel references from ino.
func (v *Volume) Forget(ino, n uint64) { v.tree.Forget(ino, n) }

// Getattr returns an inode's attributes.
func (v *Volume) Getattr(ino uint64) (Attr, error) { return v.tree.Stat(ino) }

// Parent tells where a known inode is.
func (v *Volume) Parent(ino uint64) (parent uint64, name string, ok bool) { return v.tree.Parent(ino) }

// Path is an inode's path in the live volume, for people.
func (v *Volume) Path(ino uint64) (string, error) { return v.tree.Path(ino) }

// Readlink returns a symbolic link's target.
func (v *Volume) Readlink(ino uint64) (string, error) { return v.tree.Readlink(ino) }

// OpenFile counts an open of ino; write says that it may be written through it.
func (v *Volume) OpenFile(ino uint64, write bool) error { return v.tree.OpenFile(ino, write) }

// Read reads from a file, like pread(2).
func (v *Volume) Read(ino uint64, p []byte, off int64) (int, error) {
	return v.tree.ReadAt(ino, p, off)
}

// Seek finds data or holes, like lseek(2) with SEEK_DATA and SEEK_HOLE.
func (v *Volume) Seek(ino uint64, off int64, whence int) (int64, error) {
	return v.tree.Seek(ino, off, whence)
}

// Allocated tells whether blocks that begin at or after off are allocated, beyond the end of the file too.
func (v *Volume) Allocated(ino uint64, off int64) (bool, error) { return v.tree.Allocated(ino, off) }

// Getxattr is getxattr(2): with an empty dst it returns the value's size.
func (v *Volume) Getxattr(ino uint64, name string, dst []byte) (int, error) {
	return v.tree.Getxattr(ino, name, dst)
}

// Listxattr is listxattr(2).
func (v *Volume) Listxattr(ino uint64, dst []byte) (int, error) { return v.tree.Listxattr(ino, dst) }

// OpenDir opens a directory for reading with positions.
func (v *Volume) OpenDir(dir uint64) (*backing.DirStream, error) { return v.tree.OpenDir(dir) }

// ReadDir lists a directory whole.
func (v *Volume) ReadDir(dir uint64) ([]Dirent, error) { return v.tree.ReadDir(dir) }

// Statfs is statfs(2) of the backing.
func (v *Volume) Statfs() (Statfs, error) { return v.tree.Statfs() }

// Writable lists the inodes that are open for writing: the kernel may hold dirty pages of them.
func (v *Volume) Writable() []uint64 { return v.tree.WritableOpen() }

// Writers tells how many opens for writing an inode has.
func (v *Volume) Writers(ino uint64) int { return v.tree.Writers(ino) }
