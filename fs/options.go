package fs

import (
	"os"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Cache says what the kernel does with written pages.
type Cache string

const (
	// WriteBack: the kernel keeps written pages and hands them over later, on fsync at the latest.
	WriteBack Cache = "writeback"
	// WriteThrough: every write reaches the server before it returns.
	WriteThrough Cache = "through"
)

// Known tells whether there is such a mode.
func (c Cache) Known() bool { return c == WriteBack || c == WriteThrough }

// Options of a mount.
type Options struct {
	Cache      Cache
	AllowOther bool // let all users in; the kernel checks their permissions. Without root, /etc/fuse.conf must allow it
	Suid, Dev  bool // honour setuid programs and device nodes
	Source     string
}

// maxWrite is the largest request that the kernel makes.
const maxWrite = 1 << 20

// MountOptions gives what go-fuse is to negotiate. The kernel tells what it knows of it: see Server.Init.
func MountOptions(o Options) *fuse.MountOptions {
	m := &fuse.MountOptions{
		Name: "graphvol", FsName: o.Source,
		AllowOther: o.AllowOther, DirectMount: os.Geteuid() == 0,
		MaxWrite: maxWrite, MaxReadAhead: maxWrite, MaxBackground: 64,
		EnableSymlinkCaching: true, EnableAcl: true,
		// The mount is the only writer: pages stay good when the backing's mtime moves.
		ExplicitDataCacheControl: true,
		// Replies come from memory: the pipe that go-fuse would prepare for each read is too small for the largest, and never used.
		DisableSplice: true,
		Options:       []string{"default_permissions"},
		ExtraCapabilities: fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_DONT_MASK | fuse.CAP_EXPORT_SUPPORT | fuse.CAP_SETXATTR_EXT |
			fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_ASYNC_DIO | fuse.CAP_HAS_RESEND,
	}
	if o.Cache != WriteThrough {
		m.ExtraCapabilities |= fuse.CAP_WRITEBACK_CACHE
	}
	if o.Suid {
		m.Options = append(m.Options, "suid")
	}
	if o.Dev {
		m.Options = append(m.Options, "dev")
	}
	return m
}
