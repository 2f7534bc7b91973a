package fs

import (
	"context"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"graphvol/fs/cow"
	"graphvol/fs/cow/backing"
	"graphvol/index"
)

// world is a mounted volume, and a plain directory on the same filesystem to compare with.
type world struct {
	t                       testing.TB
	mnt, back, plain, state string
	cache                   Cache
	db                      *index.DB
	vol                     *cow.Volume
	srv                     *Server
	fuse                    *fuse.Server
	flusher                 *Flusher
	browser                 Browser
	wrap                    func(Volume) Volume // nil: the volume itself is served
}

// bothModes runs a test in each cache mode.
func bothModes(t *testing.T, fn func(t *testing.T, w *world)) {
	for _, c := range []Cache{WriteBack, WriteThrough} {
		t.Run(string(c), func(t *testing.T) { fn(t, mount(t, c)) })
	}
}

func mount(t testing.TB, cache Cache) *world {
	t.Helper()
	w := newWorld(t, cache)
	w.start()
	return w
}

func newWorld(t testing.TB, cache Cache) *world {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no /dev/fuse:", err)
	}
	dir := t.TempDir()
	os.Chmod(filepath.Dir(dir), 0o755)
	w := &world{t: t, mnt: dir + "/mnt", back: dir + "/back", plain: dir + "/plain", state: dir + "/state", cache: cache}
	for _, d := range []string{w.mnt, w.back, w.plain, w.state} {
		w.must(os.Mkdir(d, 0o755))
		w.must(os.Chmod(d, 0o755))
	}
	w.must(os.Chmod(dir, 0o755))
	t.Cleanup(func() {
		if w.fuse != nil {
			w.stop()
		}
	})
	return w
}

func (w *world) must(err error) {
	if err != nil {
		w.t.Helper()
		w.t.Fatal(err)
	}
}

// start opens the volume and mounts it.
func (w *world) start() {
	w.t.Helper()
	var err error
	w.db, err = index.Open(filepath.Join(w.state, "index.db"), index.Options{})
	w.must(err)
	root, err := os.Open(w.back)
	w.must(err)
	lg := slog.New(slog.NewTextHandler(testLog{w.t}, nil))
	tr, err := backing.Open(backing.Config{Root: root, State: w.state, Log: lg})
	w.must(err)
	w.vol, err = cow.Open(context.Background(), cow.Config{Tree: tr, DB: w.db, State: w.state, Log: lg})
	w.must(err)
	var served Volume = w.vol
	if w.wrap != nil {
		served = w.wrap(served)
	}
	w.srv = New(Config{Volume: served, Browser: w.browser, Cache: w.cache, Log: lg})
	opts := MountOptions(Options{Cache: w.cache, AllowOther: os.Geteuid() == 0, Suid: true, Dev: true, Source: "graphvol-test"})
	opts.Logger = log.New(testLog{w.t}, "go-fuse: ", 0)
	w.fuse, err = fuse.NewServer(w.srv, w.mnt, opts)
	if err != nil {
		w.vol.Close(context.Background())
		w.db.Close()
		w.t.Skip("can't mount here:", err)
	}
	w.flusher = w.srv.NewFlusher(w.mnt)
	go w.fuse.Serve()
	w.must(w.fuse.WaitMount())
}

// stop unmounts and closes the volume.
func (w *world) stop() {
	w.t.Helper()
	if err := w.fuse.Unmount(); err != nil {
		w.t.Error("unmount:", err)
		unix.Unmount(w.mnt, unix.MNT_DETACH)
	}
	w.fuse = nil
	w.must(w.vol.Close(context.Background()))
	w.must(w.db.Close())
}

type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	if testing.Verbose() {
		os.Stderr.Write(p)
	}
	return len(p), nil
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: acts as several users")
	}
}
