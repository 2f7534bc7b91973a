package tree

import (
	"io/fs"
	"time"
)

// File type bits of Inode.Mode, as in st_mode.
const (
	ModeType    = 0o170000
	ModeSocket  = 0o140000
	ModeSymlink = 0o120000
	ModeRegular = 0o100000
	ModeBlock   = 0o060000
	ModeDir     = 0o040000
	ModeChar    = 0o020000
	ModeFIFO    = 0o010000
)

// Time is a timestamp with the range and the resolution of a filesystem's.
type Time struct {
	Sec  int64
	Nsec uint32 // below 1,000,000,000
}

// Time gives t as a time.Time in UTC.
func (t Time) Time() time.Time { return time.Unix(t.Sec, int64(t.Nsec)).UTC() }

// Xattr is one extended attribute under its full name ("user.x", "system.posix_acl_access").
type Xattr struct {
	Name  string
	Value []byte
}

// Inode is everything a snapshot keeps of a file, directory, symbolic link or special file, except its content, which
// Content refers to. There is no access time: reading a volume must not change its snapshots.
//
// A Source fills in all but Blocks and Content; sealing computes those two.
type Inode struct {
	Ino, Gen            uint64 // the backing's inode number, and what tells its reuses apart
	Mode                uint32 // st_mode: type and permissions
	UID, GID, Nlink     uint32
	Rdev                uint64 // block and character devices
	Size                int64  // bytes
	Mtime, Ctime, Btime Time
	Xattrs              []Xattr // sorted by name
	Target              string  // symbolic links
	Blocks              uint64  // regular files: 4 KiB blocks that are data, not holes
	Content             Ref     // regular files: segments; directories: entries
}

// IsRegular tells whether the inode is a regular file.
func (i *Inode) IsRegular() bool { return i.Mode&ModeType == ModeRegular }

// IsDir tells whether the inode is a directory.
func (i *Inode) IsDir() bool { return i.Mode&ModeType == ModeDir }

// IsSymlink tells whether the inode is a symbolic link.
func (i *Inode) IsSymlink() bool { return i.Mode&ModeType == ModeSymlink }

// FileMode is Mode as the standard library writes it.
func (i *Inode) FileMode() fs.FileMode {
	m := fs.FileMode(i.Mode & 0o777)
	switch i.Mode & ModeType {
	case ModeDir:
		m |= fs.ModeDir
	case ModeSymlink:
		m |= fs.ModeSymlink
	case ModeSocket:
		m |= fs.ModeSocket
	case ModeFIFO:
		m |= fs.ModeNamedPipe
	case ModeBlock:
		m |= fs.ModeDevice
	case ModeChar:
		m |= fs.ModeDevice | fs.ModeCharDevice
	}
	if i.Mode&0o4000 != 0 {
		m |= fs.ModeSetuid
	}
	if i.Mode&0o2000 != 0 {
		m |= fs.ModeSetgid
	}
	if i.Mode&0o1000 != 0 {
		m |= fs.ModeSticky
	}
	return m
}

// Dirent is one name in a directory.
type Dirent struct {
	Name string
	Ino  uint64
	Type uint8 // st_mode's type bits >> 12, which are the DT_ constants of readdir
}

// TypeOf is the Dirent.Type of a st_mode.
func TypeOf(mode uint32) uint8 { return uint8(mode & ModeType >> 12) }
