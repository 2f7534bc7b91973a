package input

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// onDisk mounts a volume whose backing lies on a filesystem of its own.
func onDisk(t *testing.T, fstype string, size int64, cache string) *volume.Volume {
	t.Helper()
	disk := rig.NewDisk(t, fstype, size, "")
	dir := t.TempDir()
	return rig.Mounted(t, volume.Options{Dir: dir, Backing: filepath.Join(disk.Dir, "backing"), State: filepath.Join(dir, "state"), Cache: cache})
}

// snapshotIs takes a snapshot and compares it with the backing.
func snapshotIs(t *testing.T, v *volume.Volume, name string) volume.Snapshot {
	t.Helper()
	s, err := v.Snapshot(t.Context(), name)
	must(t, err)
	want, err := describe(v.Backing)
	must(t, err)
	same(t, v.SnapshotDir(name), want)
	return s
}

// restored restores a snapshot to dest, and compares all but the times of change.
func restored(t *testing.T, v *volume.Volume, name, dest string) {
	t.Helper()
	_, err := v.Run(t.Context(), "restore", v.Mount, name, dest)
	must(t, err)
	want, err := describe(v.SnapshotDir(name))
	must(t, err)
	got, err := describe(dest)
	must(t, err)
	if err := compare(withoutCtime(got), withoutCtime(want)); err != nil {
		t.Errorf("%s restored: %v", name, err)
	}
}

func withoutCtime(tree map[string]entry) map[string]entry {
	for p, e := range tree {
		before, after, _ := strings.Cut(e.what, ", ctime ")
		_, after, _ = strings.Cut(after, ", ")
		e.what = before + ", " + after
		tree[p] = e
	}
	return tree
}

// TestXattrLimits: as much as the backing takes, and its errors beyond.
func TestXattrLimits(t *testing.T) {
	t.Parallel()
	for fstype, size := range map[string]int64{"ext4": 64 << 20, "xfs": 320 << 20} {
		t.Run(fstype, func(t *testing.T) {
			v := onDisk(t, fstype, size, "")
			var list []twin
			for i, n := range []int{0, 1, 100, 1000, 2000, 3000, 4000, 4100, 20_000, 65_535, 65_536, 65_537} {
				file := fmt.Sprintf("f%d", i)
				list = append(list, twin{fmt.Sprintf("a value of %d bytes", n), func(d string) (int, error) {
					p := filepath.Join(d, file)
					must(t, os.WriteFile(p, nil, 0o600))
					return 0, unix.Setxattr(p, "user.x", make([]byte, n), 0)
				}}, twin{fmt.Sprintf("again, of %d bytes", n), func(d string) (int, error) {
					return 0, unix.Setxattr(filepath.Join(d, file), "user.y", make([]byte, n), unix.XATTR_CREATE)
				}}, twin{"read it", func(d string) (int, error) {
					return unix.Getxattr(filepath.Join(d, file), "user.x", make([]byte, 65_536))
				}})
			}
			for _, n := range []int{1, 249, 250, 251, 300} {
				list = append(list, twin{fmt.Sprintf("a name of %d bytes", n+5), func(d string) (int, error) {
					return 0, unix.Setxattr(d, "user."+strings.Repeat("n", n), []byte("v"), 0)
				}})
			}
			list = append(list, twin{"many", func(d string) (n int, err error) {
				p := filepath.Join(d, "many")
				must(t, os.WriteFile(p, nil, 0o600))
				for ; n < 300 && err == nil; n++ {
					err = unix.Setxattr(p, fmt.Sprintf("user.%0200d", n), []byte("value"), 0)
				}
				return n, err
			}}, twin{"list them", func(d string) (int, error) { return unix.Listxattr(filepath.Join(d, "many"), make([]byte, 65_536)) }})
			twins(t, v, list)
			snapshotIs(t, v, "s")
			restored(t, v, "s", filepath.Join(filepath.Dir(v.Backing), "dest"))
			if fstype == "xfs" {
				tooManyXattrs(t, v)
			}
			must(t, v.Umount(t.Context()))
		})
	}
}

// tooManyXattrs sets more than Linux can list, which xfs lets one do: no snapshot is taken that would lack them.
func tooManyXattrs(t *testing.T, v *volume.Volume) {
	t.Helper()
	p := filepath.Join(v.Mount, "many")
	for i := range 400 {
		must(t, unix.Setxattr(p, fmt.Sprintf("user.%0200d", i), []byte("value"), 0))
	}
	refused(t, v, []string{"/many", "extended attributes", "remove some"}, "snapshot", v.Mount)
	for i := range 200 {
		must(t, unix.Removexattr(p, fmt.Sprintf("user.%0200d", i)))
	}
	snapshotIs(t, v, "fewer")
}

// TestOffsetLimits: reading, writing and the like at the ends of what offsets can be.
func TestOffsetLimits(t *testing.T) {
	t.Parallel()
	for fstype, size := range map[string]int64{"ext4": 64 << 20, "xfs": 320 << 20} {
		t.Run(fstype, func(t *testing.T) {
			v := onDisk(t, fstype, size, "through")
			var list []twin
			add := func(what string, do func(fd int) (int, error)) {
				list = append(list, twin{what, func(d string) (int, error) {
					fd, err := unix.Open(filepath.Join(d, "file"), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
					must(t, err)
					defer unix.Close(fd)
					n, err := do(fd)
					if err == nil {
						err = unix.Fsync(fd)
					}
					return n, err
				}})
			}
			const most = 1<<63 - 1
			for _, off := range []int64{-1, 0, 1<<44 - 8192, 1<<44 - 4097, 1<<44 - 4096, 1 << 44, 1 << 45, most - 4096, most - 1, most} {
				add(fmt.Sprintf("write at %d", off), func(fd int) (int, error) { return unix.Pwrite(fd, []byte("data"), off) })
				add(fmt.Sprintf("read at %d", off), func(fd int) (int, error) { return unix.Pread(fd, make([]byte, 100), off) })
				add(fmt.Sprintf("truncate to %d", off), func(fd int) (int, error) { return 0, unix.Ftruncate(fd, off) })
				add(fmt.Sprintf("truncate to %d", 100), func(fd int) (int, error) { return 0, unix.Ftruncate(fd, 100) })
				add(fmt.Sprintf("allocate at %d", off), func(fd int) (int, error) { return 0, unix.Fallocate(fd, 0, off, 4096) })
				add(fmt.Sprintf("punch at %d", off), func(fd int) (int, error) {
					return 0, unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, 1<<20)
				})
				add(fmt.Sprintf("seek data at %d", off), func(fd int) (int, error) {
					_, err := unix.Seek(fd, off, unix.SEEK_DATA)
					return 0, err
				})
				add("size", func(fd int) (int, error) {
					end, err := unix.Seek(fd, 0, unix.SEEK_END)
					return int(end), err
				})
			}
			twins(t, v, list)
			snapshotIs(t, v, "s")
			must(t, v.Umount(t.Context()))
		})
	}
}

// TestTooFarForTheBacking: with the write-back cache the kernel doesn't know how large a file may be below; whoever syncs is told.
func TestTooFarForTheBacking(t *testing.T) {
	t.Parallel()
	v := onDisk(t, "ext4", 64<<20, "writeback")
	f, err := os.Create(filepath.Join(v.Mount, "file"))
	must(t, err)
	defer f.Close()
	if _, err = f.WriteAt([]byte("too far"), 1<<45); err == nil {
		err = f.Sync()
	}
	if !errors.Is(err, unix.EFBIG) {
		t.Errorf("writing behind the end of the greatest file: %v, want EFBIG", err)
	}
	must(t, f.Close())
	snapshotIs(t, v, "s")
	must(t, v.Umount(t.Context()))
}

// TestHugeSparseFiles: files far larger than any disk, with some blocks here and there.
func TestHugeSparseFiles(t *testing.T) {
	t.Parallel()
	for fstype, size := range map[string]int64{"ext4": 1<<44 - 4096, "xfs": math.MaxInt64} {
		t.Run(fstype, func(t *testing.T) {
			v := onDisk(t, fstype, 600<<20, "")
			f, err := os.Create(filepath.Join(v.Mount, "huge"))
			must(t, err, f.Truncate(size))
			defer f.Close()
			put := func(off int64, text string) {
				_, err := f.WriteAt([]byte(text), off)
				must(t, err)
			}
			for i, off := range []int64{0, 1<<32 - 2, 1 << 40, size/2 + 5, size - 4096, size - 8} {
				put(off, fmt.Sprintf("text %d ", i))
			}
			must(t, f.Sync())
			s := snapshotIs(t, v, "s")
			t.Logf("full: %.0f ms, %d bytes dirty, %d bytes stored", s.SealMS, s.DirtyBytes, s.StoredBytes)
			put(size-8, "another ")
			s = snapshotIs(t, v, "t")
			t.Logf("the last block: %.0f ms, %d bytes dirty, %d bytes stored", s.SealMS, s.DirtyBytes, s.StoredBytes)
			if s.DirtyBytes > 1<<20 || s.StoredBytes > 64<<10 {
				t.Errorf("one block changed: %+v", s)
			}
			must(t, f.Truncate(size/2+10))
			snapshotIs(t, v, "cut")
			must(t, f.Truncate(size))
			snapshotIs(t, v, "grown")
			must(t, f.Close(), v.Umount(t.Context()), v.Start(t.Context()))
			snapshotIs(t, v, "after-scan")
			restored(t, v, "t", filepath.Join(filepath.Dir(v.Backing), "dest"))
			_, err = v.Run(t.Context(), "verify", v.Mount, "--read-data")
			must(t, err, v.Umount(t.Context()))
		})
	}
}

// TestManyLinks: one file with thousands of names; see -input.links.
func TestManyLinks(t *testing.T) {
	t.Parallel()
	links := *links
	v := rig.Mounted(t, volume.Options{})
	first := filepath.Join(v.Mount, "file")
	must(t, os.WriteFile(first, []byte("content"), 0o644))
	mkdirs(t, filepath.Join(v.Mount, "d"))
	for i := range links - 1 {
		must(t, os.Link(first, filepath.Join(v.Mount, "d", fmt.Sprint(i))))
	}
	s := snapshotIs(t, v, "s")
	t.Logf("%d names: %.0f ms, %d bytes stored", links, s.SealMS, s.StoredBytes)
	restored(t, v, "s", filepath.Join(v.Dir, "dest"))
	for i := 0; i < links-1; i += 2 {
		must(t, os.Remove(filepath.Join(v.Mount, "d", fmt.Sprint(i))))
	}
	must(t, os.WriteFile(first, []byte("changed"), 0o644))
	snapshotIs(t, v, "t")
	out, err := v.Run(t.Context(), "diff", v.Mount, "s", "t", "--json")
	must(t, err)
	if got := len(paths(t, out, "changes")); got != links/2+1 {
		t.Errorf("diff has %d changes, want %d", got, links/2+1)
	}
	restored(t, v, "t", filepath.Join(v.Dir, "dest2"))
	_, err = v.Run(t.Context(), "restore", v.Mount, "s", v.Mount)
	must(t, err)
	snapshotIs(t, v, "back")
}

// TestManyFiles measures what many files cost; see -input.files.
func TestManyFiles(t *testing.T) {
	v := rig.NewVolume(t, volume.Options{})
	start := time.Now()
	makeFiles(t, v.Backing, *files)
	t.Logf("%d files made in %v", *files, time.Since(start))
	must(t, v.Start(t.Context()))
	measure(t, v, "full")
	for i := range 100 {
		must(t, os.WriteFile(filepath.Join(v.Mount, fmt.Sprintf("d%d/f%d", i%(*files/1000), i)), []byte("changed"), 0o644))
	}
	if s := measure(t, v, "incremental"); s.Files != int64(*files) {
		t.Errorf("%d files, want %d", s.Files, *files)
	}
	must(t, v.Umount(t.Context()))
	must(t, os.WriteFile(filepath.Join(v.Backing, "d0", "f7"), []byte("behind"), 0o644), v.Start(t.Context()))
	if s := measure(t, v, "after-mount"); s.DirtyBytes > 1<<20 {
		t.Errorf("one file was changed, but %d bytes are dirty", s.DirtyBytes)
	}
	rig.SameFile(t, filepath.Join(v.SnapshotDir("after-mount"), "d0", "f7"), []byte("behind"))
	start = time.Now()
	_, err := v.Run(t.Context(), "verify", v.Mount)
	must(t, err)
	t.Logf("verify: %v", time.Since(start))
	rss(t, v, "verify")
}

func makeFiles(t *testing.T, dir string, n int) {
	t.Helper()
	var wg sync.WaitGroup
	errs := make([]error, n/1000)
	for d := range errs {
		mkdirs(t, filepath.Join(dir, fmt.Sprintf("d%d", d)))
		wg.Go(func() {
			for i := range 1000 {
				name := filepath.Join(dir, fmt.Sprintf("d%d/f%d", d, i))
				errs[d] = errors.Join(errs[d], os.WriteFile(name, []byte(name), 0o644))
			}
		})
		if d%8 == 7 {
			wg.Wait()
		}
	}
	wg.Wait()
	must(t, errs...)
}

// measure takes a snapshot and tells what it cost.
func measure(t *testing.T, v *volume.Volume, name string) volume.Snapshot {
	t.Helper()
	start := time.Now()
	s, err := v.Snapshot(t.Context(), name)
	must(t, err)
	t.Logf("%s: %v, pause %.3f ms, seal %.0f ms, %d bytes stored", name, time.Since(start), s.PauseMS, s.SealMS, s.StoredBytes)
	rss(t, v, name)
	return s
}

// rss fails where the server has used more memory than what is good for a million files.
func rss(t *testing.T, v *volume.Volume, when string) {
	t.Helper()
	st, err := v.Status(t.Context())
	must(t, err)
	peak, err := volume.PeakRSS(st.ServerPID)
	must(t, err)
	t.Logf("%s: the server has used %d MiB", when, peak>>20)
	if peak > 1<<30 {
		t.Errorf("%s: the server has used %d MiB", when, peak>>20)
	}
}
