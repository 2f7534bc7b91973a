package fs

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"graphvol/fs/cow"
	"graphvol/fs/cow/backing"
	"graphvol/fs/hold"
)

// Node ids that mean something by themselves.
const (
	rootID     = 1
	browseBit  = 1 << 63
	longTime   = 24 * time.Hour
	writerTime = time.Second // of the attributes of a file that is open for writing
)

// Config says what a Server serves.
type Config struct {
	Volume  Volume
	Browser Browser // nil: no snapshots are shown
	SnapDir string  // the name below the root that leads to Browser; empty: .snapshots
	Cache   Cache
	Log     *slog.Logger // nil: nothing is logged
}

// Server is the FUSE front. go-fuse calls its methods concurrently.
type Server struct {
	fuse.RawFileSystem // answers ENOSYS to what isn't served: locks, access
	vol                Volume
	browse             Browser
	snapDir            string
	root               uint64
	writeback          bool
	log                *slog.Logger

	notify  atomic.Pointer[fuse.Server]
	flusher atomic.Pointer[Flusher]
	files   sync.Map // inode number to *fileState, of files open for writing
	dirs    dirTable
	own     sync.Map // thread ids of the Flusher's threads

	applySoon atomic.Bool // applyTimes comes soon
	applyMu   sync.Mutex  // held by applyTimes
}

var _ fuse.RawFileSystem = (*Server)(nil)

// New makes a front. Nothing is served before go-fuse calls it.
func New(cfg Config) *Server {
	s := &Server{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		vol:           cfg.Volume, browse: cfg.Browser, snapDir: cfg.SnapDir, root: cfg.Volume.Root(),
		writeback: cfg.Cache != WriteThrough, log: cfg.Log,
	}
	if s.snapDir == "" {
		s.snapDir = ".snapshots"
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.dirs.open = map[uint64]*backing.DirStream{}
	return s
}

// String names the filesystem in go-fuse's debug output.
func (s *Server) String() string { return "graphvol" }

// Init is called when the kernel's abilities are known.
func (s *Server) Init(srv *fuse.Server) {
	s.notify.Store(srv)
	k := srv.KernelSettings().Flags64()
	if k&fuse.CAP_WRITEBACK_CACHE == 0 && s.writeback {
		s.log.Warn("this kernel has no write-back cache for FUSE: writes will be slower")
	}
	if k&fuse.CAP_HANDLE_KILLPRIV_V2 == 0 {
		s.log.Warn("this kernel asks for security.capability before every write (FUSE_HANDLE_KILLPRIV_V2 came with 5.11): writes will be slower")
	}
	if s.browse != nil {
		s.browse.Init(srv)
	}
}

// OnUnmount is called when the connection to the kernel has ended.
func (s *Server) OnUnmount() {
	s.notify.Store(nil)
	s.applyTimes()
	s.dirs.closeAll()
	if s.browse != nil {
		s.browse.OnUnmount()
	}
}

// snap returns the Browser if it serves this node id.
func (s *Server) snap(id uint64) Browser {
	if id&browseBit != 0 {
		return s.browse
	}
	return nil
}

// ino gives the inode number of a node id.
func (s *Server) ino(id uint64) uint64 {
	if id == rootID {
		return s.root
	}
	return id
}

// node gives the node id of an inode number.
func (s *Server) node(ino uint64) uint64 {
	if ino == s.root {
		return rootID
	}
	return ino
}

func (s *Server) caller(h *fuse.InHeader, umask uint32) cow.Caller {
	return cow.Caller{
		Caller: backing.Caller{Uid: h.Uid, Gid: h.Gid, Pid: h.Pid, Umask: umask},
		Resent: hold.Resent(h), Request: hold.RequestID(h),
	}
}

// status translates an error for the kernel. What is no Errno is a fault of this program or of the disk: EIO, and a line in the log.
func (s *Server) status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	var e syscall.Errno
	if errors.As(err, &e) && e != 0 {
		return fuse.Status(e)
	}
	s.log.Error("a request failed without an error number", "err", err)
	return fuse.EIO
}

// StatFs tells sizes and free space.
func (s *Server) StatFs(c <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	if b := s.snap(h.NodeId); b != nil {
		return b.StatFs(c, h, out)
	}
	st, err := s.vol.Statfs()
	if err != nil {
		return s.status(err)
	}
	out.Blocks, out.Bfree, out.Bavail, out.Files, out.Ffree = st.Blocks, st.Bfree, st.Bavail, st.Files, st.Ffree
	out.Bsize, out.NameLen, out.Frsize = st.Bsize, st.Namelen, st.Frsize
	return fuse.OK
}

// Ioctl refuses all: an ioctl that reached the backing could shut the host's filesystem down, or lift an immutable flag.
func (s *Server) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(syscall.ENOTTY)
}
