package backing

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Tree is a backing directory. See the package documentation.
type Tree struct {
	log   *slog.Logger
	root  *node
	dev   devID
	mnt   uint64
	creds *credentials // nil: the server can't act for others
	names sync.RWMutex
	nodes nodeMap
	table *table
	cache fdCache
	syncs aioPool
	stash Stash // may be nil

	inherited chan struct{} // closed when every node of an earlier process is in the map
	closing   atomic.Bool

	compacting sync.Mutex // held by whoever moves records out of segments; outermost, and only tried

	xdev sync.Map // inode numbers of directories whose crossing was logged
}

type devID struct{ major, minor uint32 }

// Open takes cfg.Root over and reads the node table. It sets the process's umask to 0: new files must get exactly the mode
// that the kernel asked for. With cfg.Takeover, references and opens that an earlier process recorded count on.
func Open(cfg Config) (*Tree, error) {
	t, err := openTree(cfg)
	if err != nil {
		return nil, err
	}
	go t.inheritAll()
	return t, nil
}

func openTree(cfg Config) (*Tree, error) {
	unix.Umask(0)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	t := &Tree{log: cfg.Log, stash: cfg.Stash, inherited: make(chan struct{})}
	t.nodes.init()
	t.cache.max = maxFDs(cfg.MaxFD)
	fd, err := unix.FcntlInt(cfg.Root.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("backing %s: %w", cfg.Root.Name(), err)
	}
	st, err := t.statx(fd, "")
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = syscall.ENOTDIR
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("backing %s: %w", cfg.Root.Name(), err)
	}
	t.dev, t.mnt = devID{st.Dev_major, st.Dev_minor}, st.Mnt_id
	if t.creds, err = loadCredentials(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if t.table, err = openTable(filepath.Join(cfg.State, "nodes"), t.log); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if cfg.Takeover {
		t.nodes.old.Store(t.table.adopt())
	} else {
		t.loadHints()
	}
	t.adoptStashed(cfg.Stashed)
	t.addRoot(fd, st)
	cfg.Root.Close()
	return t, nil
}

// addRoot puts the root into the node map; its descriptor stays open until Close.
func (t *Tree) addRoot(fd int, st *unix.Statx_t) {
	a := attrOf(st)
	a.Gen = t.generation(fd, "")
	n := t.learn(a, 0, "", 0)
	n.mu.Lock()
	n.pin = newHandle(n, kindPath, fd)
	n.mu.Unlock()
	n.kids.Add(1) // never idle
	t.root = n
}

func maxFDs(n int) int {
	if n > 0 {
		return n
	}
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) != nil || lim.Cur < 64 {
		return 32
	}
	return int(min(lim.Cur/2, 1<<20))
}

// Close closes every descriptor. The node table stays for the next process.
func (t *Tree) Close() error {
	t.closing.Store(true)
	<-t.inherited
	t.names.Lock()
	defer t.names.Unlock()
	t.nodes.each(func(n *node) {
		n.mu.Lock()
		hs := n.dropHandlesLocked()
		n.mu.Unlock()
		t.releaseAll(hs)
	})
	t.syncs.close()
	t.table.close()
	return nil
}

// Root is the root's inode number.
func (t *Tree) Root() uint64 { return t.root.ino }

// Dev is the backing's device number, as in st_dev.
func (t *Tree) Dev() uint64 { return unix.Mkdev(t.dev.major, t.dev.minor) }

// MountOf is the number of the mount that a file is on, which no other mount gets while the machine runs. 0: the kernel can't tell.
func MountOf(fd int) uint64 {
	const mntIDUnique = 0x4000 // STATX_MNT_ID_UNIQUE, since Linux 6.8
	var st unix.Statx_t
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH, mntIDUnique, &st) != nil || st.Mask&mntIDUnique == 0 {
		return 0
	}
	return st.Mnt_id
}

// Mount is the number of the backing's mount.
func (t *Tree) Mount() uint64 {
	h, err := t.acquire(t.root.ino, kindPath)
	if err != nil {
		return 0
	}
	defer h.release()
	return MountOf(h.fd)
}

// Statfs tells sizes and free space of the backing's filesystem.
func (t *Tree) Statfs() (Statfs, error) {
	h, err := t.acquire(t.root.ino, kindPath)
	if err != nil {
		return Statfs{}, err
	}
	defer h.release()
	var s unix.Statfs_t
	if err := eintr(func() error { return unix.Fstatfs(h.fd, &s) }); err != nil {
		return Statfs{}, err
	}
	return Statfs{
		Blocks: s.Blocks, Bfree: s.Bfree, Bavail: s.Bavail, Files: s.Files, Ffree: s.Ffree,
		Bsize: uint32(s.Bsize), Namelen: uint32(s.Namelen), Frsize: uint32(s.Frsize),
	}, nil
}

// eintr repeats fn while a signal interrupts it.
func eintr(fn func() error) error {
	for {
		if err := fn(); err != syscall.EINTR {
			return err
		}
	}
}

// procPath names a descriptor. It is the thread's own list that is asked: that of the process is its first thread's, which may have
// been given another one.
func procPath(fd int) string { return "/proc/thread-self/fd/" + strconv.Itoa(fd) }

// maxName is the length of the longest name.
const maxName = 255

// checkName refuses what is no single component.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." {
		return syscall.EINVAL
	}
	for i := 0; i < len(name); i++ {
		if name[i] == '/' || name[i] == 0 {
			return syscall.EINVAL
		}
	}
	if len(name) > maxName {
		return syscall.ENAMETOOLONG
	}
	return nil
}
