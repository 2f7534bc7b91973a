package snapshot

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/snapshot/tree"
)

// printed gives the names in the directory of fingerprints.
func printed(t *testing.T, r *Repo) (names []string) {
	t.Helper()
	list, err := os.ReadDir(r.prints.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// What is set is there for the next seal, up to the end of the file, unless the file is a new one.
func TestFilePrints(t *testing.T) {
	d := &printDir{path: filepath.Join(t.TempDir(), "f"), log: slog.New(slog.DiscardHandler), smallFile: 10}
	const blocks, shorter = 1 << 30, 64*SegmentBlocks + 10 // 4 TiB
	segs := []uint64{0, 63, 64, 700, blocks/SegmentBlocks - 1}
	p := d.begin(true).newFilePrints(7, blocks, 0, true)
	for _, seg := range segs {
		p.segment(seg).set(0, 5)
		p.segment(seg).set(31, 6)
		p.passed(seg)
	}
	p.finish()
	p.close()
	var st syscall.Stat_t
	if err := syscall.Stat(d.name(7), &st); err != nil || st.Mode&0o7777 != 0o600 || st.Size != 4*blocks || st.Blocks*512 > 4*printPageLen {
		t.Errorf("mode %o, %d bytes of which %d are on the disk: %v", st.Mode, st.Size, st.Blocks*512, err)
	}
	for _, c := range []struct {
		what        string
		now, before uint64
		fresh       bool
		want        []uint32 // first and last of each segment
	}{
		{"the same", blocks, blocks, false, []uint32{5, 6, 5, 6, 5, 6, 5, 6, 5, 6}},
		{"shorter", shorter, blocks, false, []uint32{5, 6, 5, 6, 5, 0, 0, 0, 0, 0}},
		{"longer again", blocks, shorter, false, []uint32{5, 6, 5, 6, 5, 0, 0, 0, 0, 0}},
		{"another", blocks, blocks, true, make([]uint32, 10)},
	} {
		p := d.begin(false).newFilePrints(7, c.now, c.before, c.fresh)
		var got []uint32
		for _, seg := range segs {
			got = append(got, p.segment(seg).get(0), p.segment(seg).get(31))
		}
		p.close()
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %d, want %d", c.what, got, c.want)
		}
	}
	if small := d.begin(false).newFilePrints(7, 10, 10, false); small.segment(0) != nil {
		t.Error("a small file has fingerprints")
	}
}

// A block whose fingerprint differs is stored without a look at the parent's; any other is compared, and not stored if it is equal.
func TestPrintsSaveComparing(t *testing.T) {
	state := t.TempDir()
	v := newFakeVolume(rand.New(rand.NewPCG(1, 40)))
	in := v.add(tree.ModeRegular | 0o600)
	v.write(in, 0, 2000, false)
	change := func() *fakeSource {
		for b := uint64(0); b < 2000; b += 100 {
			for same := in.blocks[b]; bytes.Equal(same, in.blocks[b]); {
				v.write(in, b, 1, false)
			}
		}
		return v.barrier(false)
	}
	r := openRepo(t, state)
	seal(t, r, v.barrier(true))
	for _, c := range []struct {
		what    string
		remove  bool
		compare bool
	}{{"kept", false, false}, {"lost", true, true}, {"made again", false, false}} {
		closeRepo(t, r)
		r = openRepo(t, state) // with no chunk cached
		if c.remove {
			if err := os.RemoveAll(r.prints.path); err != nil {
				t.Fatal(err)
			}
		}
		src := change()
		snap := seal(t, r, src)
		if compared := r.chunks.mu.lru.Len() > 0; compared != c.compare {
			t.Errorf("%s: compared with the store: %v", c.what, compared)
		}
		checkSnapshot(t, r, snap, src)
	}
	v.write(in, 0, 2000, true)
	if snap := seal(t, r, v.barrier(false)); snap.StoredBytes > 4096 {
		t.Errorf("equal blocks took %d bytes", snap.StoredBytes)
	}
	closeRepo(t, r)
}

// spoil changes files of fingerprints at random.
func spoil(t *testing.T, rnd *rand.Rand, r *Repo, old map[string][]byte) {
	t.Helper()
	for _, name := range printed(t, r) {
		path := filepath.Join(r.prints.path, name)
		p, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		keep := bytes.Clone(p)
		switch rnd.IntN(6) {
		case 0: // bytes anywhere
			for range rnd.IntN(200) {
				if len(p) > 0 {
					p[rnd.IntN(len(p))] = byte(rnd.Uint32())
				}
			}
		case 1: // all
			for i := range p {
				p[i] = byte(rnd.Uint32())
			}
		case 2:
			p = p[:rnd.IntN(len(p)+1)]
		case 3: // of an older snapshot, or of another file
			p = old[name]
			for _, other := range old {
				if rnd.IntN(8) == 0 {
					p = other
				}
			}
		case 4:
			p = append(p, 1, 2, 3)
		}
		old[name] = keep
		write(t, path, p)
	}
}

// Whatever the files of fingerprints hold, a snapshot has what the volume had.
func TestPrintsAreOnlyHints(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	v := newFakeVolume(rand.New(rand.NewPCG(seed, 41)))
	r := newRepo(t)
	r.prints.smallFile = 0
	for range 100 {
		v.step()
	}
	seal(t, r, v.barrier(true))
	old := map[string][]byte{}
	spoiled := 0
	for range 30 {
		spoiled += len(printed(t, r))
		spoil(t, v.r, r, old)
		for range v.r.IntN(60) {
			v.step()
		}
		src := v.barrier(v.r.IntN(20) == 0)
		checkSnapshot(t, r, seal(t, r, src), src)
	}
	if spoiled == 0 {
		t.Error("there were no fingerprints")
	}
}

// Fingerprints of a seal that failed are those of blocks that the parent doesn't have.
func TestPrintsOfAFailedSeal(t *testing.T) {
	r := newRepo(t)
	v := newFakeVolume(rand.New(rand.NewPCG(1, 42)))
	in := v.add(tree.ModeRegular | 0o600)
	v.write(in, 0, 1000, false)
	seal(t, r, v.barrier(true))
	parent := slices.Clone(in.blocks[5])
	v.write(in, 5, 1, false)
	v.write(in, 600, 1, false)
	src := v.barrier(false)
	snap, err := r.Begin("", BeginOptions{})
	if err != nil {
		t.Fatal(err)
	}
	crash(t, r, snap, src, 1)
	if err := r.Abandon(snap, errPower); err != nil {
		t.Fatal(err)
	}
	src.Release(false)
	v.write(in, 5, 1, false)
	in.blocks[5] = parent // as the parent has it, not as the fingerprint says
	src = v.barrier(false)
	checkSnapshot(t, r, seal(t, r, src), src) // block 600 is as the fingerprint says, not as the parent has it
}

// breakPrints are ways in which fingerprints can't be kept.
var breakPrints = map[string]func(t *testing.T, r *Repo, ino uint64){
	"the directory is a file": func(t *testing.T, r *Repo, _ uint64) {
		if err := os.RemoveAll(r.prints.path); err != nil {
			t.Fatal(err)
		}
		write(t, r.prints.path, nil)
	},
	"a file is a directory": func(t *testing.T, r *Repo, ino uint64) {
		if err := os.RemoveAll(r.prints.name(ino)); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(r.prints.name(ino), "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	},
	"full disk":      func(t *testing.T, r *Repo, _ uint64) { mountPrints(t, r, 0, "size=8k") },
	"no inodes left": func(t *testing.T, r *Repo, _ uint64) { mountPrints(t, r, 0, "nr_inodes=1") },
	"read-only":      func(t *testing.T, r *Repo, _ uint64) { mountPrints(t, r, unix.MS_RDONLY, "") },
}

func mountPrints(t *testing.T, r *Repo, flags uintptr, opts string) {
	t.Helper()
	if err := unix.Mount("none", r.prints.path, "tmpfs", flags, opts); err != nil {
		t.Skip("can't mount a tmpfs:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(r.prints.path, 0); err != nil {
			t.Error(err)
		}
	})
}

// No error of the fingerprints' files fails a snapshot or prune; the log has one line for each seal.
func TestPrintErrorsAreHarmless(t *testing.T) {
	for what, breakIt := range breakPrints {
		t.Run(what, func(t *testing.T) {
			r := newRepo(t)
			v := newFakeVolume(rand.New(rand.NewPCG(1, 43)))
			var files []*fakeInode
			for range 3 {
				files = append(files, v.add(tree.ModeRegular|0o600))
				v.write(files[len(files)-1], 0, 2500, false)
			}
			seal(t, r, v.barrier(true))
			breakIt(t, r, files[0].Ino)
			var log bytes.Buffer
			r.prints.log = slog.New(slog.NewTextHandler(&log, nil))
			for i, full := range []bool{false, true, false} {
				log.Reset()
				for _, in := range files {
					for b := uint64(0); b < 2500; b += 50 {
						v.write(in, b, 1, false)
					}
				}
				src := v.barrier(full)
				snap := seal(t, r, src)
				if n := strings.Count(log.String(), "\n"); n > 1 || n == 0 && i == 0 {
					t.Errorf("%d lines of log: %s", n, log.String())
				}
				checkSnapshot(t, r, snap, src)
			}
			prune(t, r)
		})
	}
}

// Files of fingerprints go with what they are of.
func TestPrintsAreRemoved(t *testing.T) {
	r := newRepo(t)
	v := newFakeVolume(rand.New(rand.NewPCG(1, 44)))
	var files []*fakeInode
	for i := range uint64(5) {
		in := v.make(1000+i, tree.ModeRegular|0o600)
		v.setName(v.inos[fakeRoot], string(rune('a'+i)), in.Ino)
		v.write(in, 0, 100, false)
		files = append(files, in)
	}
	expect := func(what string, want ...string) {
		t.Helper()
		if got := printed(t, r); !slices.Equal(got, want) {
			t.Fatalf("%s: there are %q, want %q", what, got, want)
		}
	}
	seal(t, r, v.barrier(true))
	expect("at first", "1000.crc32c", "1001.crc32c", "1002.crc32c", "1003.crc32c", "1004.crc32c")
	delete(v.inos[fakeRoot].names, "a")
	v.mark(fakeRoot).names["a"] = true
	v.mark(1000)
	delete(v.inos, 1000)
	v.truncate(files[1], 100)
	files[2].Mode, files[2].names, files[2].Gen = tree.ModeDir|0o700, map[string]uint64{}, 9999
	v.mark(1002).fresh = true
	seal(t, r, v.barrier(false))
	expect("after a removal, a truncation, and a number that became a directory's", "1003.crc32c", "1004.crc32c")

	for _, name := range []string{"1001.crc32c", "1002.crc32c", "77.crc32c", "01003.crc32c", "1003.crc32", "x"} {
		write(t, filepath.Join(r.prints.path, name), []byte("left"))
	}
	r.prints.sealing.Lock()
	prune(t, r)
	if len(printed(t, r)) != 8 {
		t.Error("prune removed fingerprints beside a seal")
	}
	r.prints.sealing.Unlock()
	if _, err := r.Prune(t.Context(), PruneOptions{DryRun: true}); err != nil || len(printed(t, r)) != 8 {
		t.Errorf("a dry run removed fingerprints: %v", err)
	}
	prune(t, r)
	expect("after prune", "1003.crc32c", "1004.crc32c")

	write(t, filepath.Join(r.prints.path, "77.crc32c"), []byte("left"))
	files[3].Size, files[3].blocks = 0, map[uint64][]byte{}
	src := v.barrier(true)
	checkSnapshot(t, r, seal(t, r, src), src)
	expect("after a full seal", "1004.crc32c")
	if st, err := os.Stat(r.prints.path); err != nil || st.Mode() != os.ModeDir|0o700 {
		t.Errorf("the directory: %v %v", st, err)
	}
	all, err := r.Snapshots()
	if err == nil {
		err = r.Delete(t.Context(), all)
	}
	if err != nil {
		t.Fatal(err)
	}
	prune(t, r)
	expect("after the last snapshot")
}
