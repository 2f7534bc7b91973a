package faults

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Kind is a kind of call; several are joined by |.
type Kind uint32

// The kinds. Mknod counts as Create, rmdir as Unlink, lookups and getattr as Stat, opendir as Open.
const (
	Open Kind = 1 << iota
	Create
	Read
	Write
	Fsync
	FsyncDir
	Fallocate
	Truncate
	Rename
	Unlink
	Mkdir
	Link
	Readdir
	Stat
)

// Kinds lists all kinds.
func Kinds() []Kind {
	var all []Kind
	for k := Open; k <= Stat; k <<= 1 {
		all = append(all, k)
	}
	return all
}

func (k Kind) String() string {
	names := []string{"open", "create", "read", "write", "fsync", "fsyncdir", "fallocate", "truncate", "rename", "unlink", "mkdir",
		"link", "readdir", "stat"}
	var out []string
	for i, name := range names {
		if k&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return strings.Join(out, "|")
}

// Fault says which calls fail, and how.
type Fault struct {
	Kinds Kind          // 0: all
	Below string        // only paths that begin with it; relative to the disk's directory
	At    int           // so many calls that match go well before
	All   bool          // all calls from then on fail, not just one
	Errno syscall.Errno // of the calls that fail
	Short bool          // a write fails by writing half, without an error
}

func (f *Fault) String() string {
	how := f.Errno.Error()
	if f.Short {
		how = "short"
	}
	which := "call"
	if f.All {
		which = "all from call"
	}
	return fmt.Sprintf("%v %s%s %d: %s", f.Kinds, f.Below, which, f.At, how)
}

func (f *Fault) matches(k Kind, path string) bool {
	return (f.Kinds == 0 || f.Kinds&k != 0) && strings.HasPrefix(path, f.Below)
}

// Disk is a filesystem that fails on demand. Its methods may be called at any time from any goroutine, but for Mount, Unmount and CutPower.
type Disk struct {
	Dir    string // where it is mounted
	Real   string // the directory that it shows
	server *fuse.Server
	names  names
	files  durableFiles

	mu struct {
		sync.Mutex
		fault *Fault
		seen  int // calls that matched the fault
		hit   []string
		count map[Kind]int
		held  *hold
	}
}

// hold keeps calls waiting.
type hold struct {
	kinds   Kind
	below   string
	release chan struct{}
}

// NewDisk mounts a Disk until the test ends.
func NewDisk(t testing.TB) *Disk {
	t.Helper()
	d := &Disk{Dir: t.TempDir(), Real: t.TempDir()}
	d.mu.count = make(map[Kind]int)
	if err := d.Mount(); err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	t.Cleanup(func() {
		d.Disarm()
		if err := d.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// Mount mounts the disk again, with a cache that knows nothing.
func (d *Disk) Mount() error {
	root, err := fs.NewLoopbackRoot(d.Real)
	if err != nil {
		return err
	}
	d.names.reset()
	raw := &calls{RawFileSystem: fs.NewNodeFS(root, &fs.Options{}), disk: d}
	d.server, err = fuse.NewServer(raw, d.Dir, &fuse.MountOptions{
		FsName: "faults", Name: "faults", DirectMount: true,
		// As on a local disk: only the kernel decides when pages come and go.
		ExplicitDataCacheControl: true,
		DisabledCapabilities:     fuse.CAP_PASSTHROUGH,
		DisableReadDirPlus:       true, // an entry is looked up by its name, so that names are known
	})
	if err != nil {
		return err
	}
	go d.server.Serve()
	return d.server.WaitMount()
}

// Unmount unmounts the disk; nobody may use it any more.
func (d *Disk) Unmount() error {
	if err := d.server.Unmount(); err != nil {
		return fmt.Errorf("unmount %s: %w", d.Dir, err)
	}
	d.server.Wait()
	return nil
}

// Arm makes calls fail from now on, and only those of f.
func (d *Disk) Arm(f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.fault, d.mu.seen, d.mu.hit = &f, 0, nil
	clear(d.mu.count)
}

// Disarm ends the fault. It tells which calls failed, and how many calls of each kind there were since Arm.
func (d *Disk) Disarm() (hit []string, count map[Kind]int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.fault = nil
	count = make(map[Kind]int)
	for k, n := range d.mu.count {
		count[k] = n
	}
	return d.mu.hit, count
}

// Hold keeps calls waiting until release is called, once.
func (d *Disk) Hold(kinds Kind, below string) (release func()) {
	h := &hold{kinds, below, make(chan struct{})}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.held = h
	return func() {
		d.mu.Lock()
		d.mu.held = nil
		d.mu.Unlock()
		close(h.release)
	}
}

// enter is called at the beginning of each call. It returns the error to fail with, and whether a write is to be short.
func (d *Disk) enter(k Kind, path string) (errno syscall.Errno, short bool) {
	d.mu.Lock()
	h := d.mu.held
	d.mu.Unlock()
	if h != nil && h.kinds&k != 0 && strings.HasPrefix(path, h.below) {
		<-h.release
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.count[k]++
	f := d.mu.fault
	if f == nil || !f.matches(k, path) {
		return 0, false
	}
	n := d.mu.seen
	d.mu.seen++
	if n != f.At && !(f.All && n > f.At) {
		return 0, false
	}
	d.mu.hit = append(d.mu.hit, k.String()+" "+path)
	return f.Errno, f.Short
}

// names knows where inodes are.
type names struct {
	mu   sync.Mutex
	path map[uint64]string // by node id
	ino  map[uint64]uint64
}

func (n *names) reset() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.path, n.ino = map[uint64]string{fuse.FUSE_ROOT_ID: ""}, map[uint64]uint64{}
}

// of returns the path of a node, or of a name in it.
func (n *names) of(node uint64, name ...string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return filepath.Join(append([]string{n.path[node]}, name...)...)
}

func (n *names) inode(node uint64) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ino[node]
}

func (n *names) learn(parent uint64, name string, out *fuse.EntryOut) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.path[out.NodeId] = filepath.Join(n.path[parent], name)
	n.ino[out.NodeId] = out.Attr.Ino
}

func (n *names) moved(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, p := range n.path {
		if p == from || strings.HasPrefix(p, from+"/") {
			n.path[id] = to + p[len(from):]
		}
	}
}
