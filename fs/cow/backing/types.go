package backing

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Caller is who a modifying request acts for. Umask is applied at create where the parent directory has no default ACL.
type Caller struct{ Uid, Gid, Pid, Umask uint32 }

// inGroup tells whether the caller has a group, as its own or as a supplementary one. Those are not part of a request, but the process waits for its answer.
func (c Caller) inGroup(gid uint32) bool {
	if c.Gid == gid {
		return true
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Pid))
	return err == nil && slices.Contains(supplementary(string(status)), gid)
}

// supplementary reads the groups out of a process's status.
func supplementary(status string) (gids []uint32) {
	for line := range strings.Lines(status) {
		list, ok := strings.CutPrefix(line, "Groups:")
		if !ok {
			continue
		}
		for _, f := range strings.Fields(list) {
			if n, err := strconv.ParseUint(f, 10, 32); err == nil {
				gids = append(gids, uint32(n))
			}
		}
	}
	return gids
}

// Time is a point in time as the filesystem keeps it: seconds since 1970 (may be negative) and nanoseconds below 1e9.
type Time struct {
	Sec  int64
	Nsec uint32
}

// Attr is everything stat tells about an inode, and its generation.
type Attr struct {
	Ino                        uint64
	Gen                        uint64 // tells reused inode numbers apart; 0 where the filesystem has no file handles
	Mode                       uint32 // st_mode: type and permission bits
	Nlink, Uid, Gid            uint32
	Rdev                       uint64 // as in st_rdev
	Size                       int64
	Blocks                     int64 // units of 512 bytes, truly allocated
	Blksize                    uint32
	Atime, Mtime, Ctime, Btime Time // Btime is zero where the filesystem has none
}

// SetMask says which fields of a SetAttr count.
type SetMask uint32

// Bits of SetMask.
const (
	SetMode     SetMask = 1 << iota
	SetUid              // Uid
	SetGid              // Gid
	SetSize             // Size: truncate or extend
	SetAtime            // Atime, or now with SetAtimeNow
	SetMtime            // Mtime, or now with SetMtimeNow
	SetAtimeNow         // with SetAtime
	SetMtimeNow         // with SetMtime
	SetKillPriv         // clear setuid, setgid (where the group may execute, or isn't the caller's) and security.capability, as a write by an unprivileged caller does
)

// SetAttr is a change of attributes. The change time always becomes now: the filesystem's own clock sets it.
type SetAttr struct {
	Valid        SetMask
	Mode         uint32 // permission bits, 07777
	Uid, Gid     uint32
	Size         int64
	Atime, Mtime Time
}

// Removal tells what happened to an inode that lost a name.
type Removal struct {
	Before, After Attr // After.Nlink == 0: the last name is gone (directories too). Then Attr stays readable while it is held or open.
}

// Moved tells what a rename did.
type Moved struct {
	Inode     Attr     // of the inode that is at the new name now
	Replaced  *Removal // what the new name meant before, if it lost that name
	Exchanged *Attr    // with RenameExchange: of the inode that is at the old name now
	Same      bool     // both names were links to one inode: nothing was done, as POSIX has it
}

// Rename flags, as in renameat2(2).
const (
	RenameNoReplace = 1
	RenameExchange  = 2
	RenameWhiteout  = 4
)

// Dirent is one entry of a directory.
type Dirent struct {
	Name string
	Ino  uint64
	Type uint32 // S_IFMT bits as in st_mode; 0 where the filesystem doesn't tell
	Off  int64  // position after this entry, for DirStream.ReadAt; stable over reopening where the filesystem's own is
}

// Statfs is what statfs(2) tells; sizes in units of Frsize.
type Statfs struct {
	Blocks, Bfree, Bavail, Files, Ffree uint64
	Bsize, Namelen, Frsize              uint32
}

// Config says where a Tree works.
type Config struct {
	Root  *os.File // the backing directory, opened before anything is mounted over it; the Tree takes it over
	State string   // directory for the node table; created if missing
	Log   *slog.Logger
	MaxFD int // bound for cached file descriptors; 0: half of RLIMIT_NOFILE
	// Takeover: the mount stayed while the server was replaced, so what the node table says the kernel knows is still so.
	Takeover bool
	// Stash keeps descriptors of open files without a name for the next process; nil: nobody does. Stashed is what an earlier process
	// left there; the Tree takes the files over.
	Stash   Stash
	Stashed map[uint64]*os.File
}

// Stash keeps descriptors by inode number beyond the death of the process. (hold.Session is one.)
type Stash interface {
	Stash(ino uint64, f *os.File) error // replaces what was kept for ino
	Unstash(ino uint64) error
}
