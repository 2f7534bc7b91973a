package fs

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// The plain filesystem's figures stand beside the mount's: run with -bench . and compare the lines.

func benchBoth(b *testing.B, fn func(b *testing.B, dir string)) {
	for _, c := range []Cache{WriteBack, WriteThrough} {
		w := mount(b, c)
		b.Run(string(c), func(b *testing.B) { fn(b, w.mnt) })
		if c == WriteThrough {
			b.Run("plain", func(b *testing.B) { fn(b, w.plain) })
		}
	}
}

func BenchmarkWrite4K(b *testing.B) {
	benchBoth(b, func(b *testing.B, dir string) {
		f, err := os.Create(dir + "/w")
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		p := make([]byte, 4096)
		for i := range b.N {
			if _, err := f.WriteAt(p, int64(i%16384)*4096); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkAppendSync(b *testing.B) {
	benchBoth(b, func(b *testing.B, dir string) {
		f, err := os.Create(dir + "/a")
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		p := make([]byte, 1000)
		for b.Loop() {
			f.Write(p)
			if err := unix.Fdatasync(int(f.Fd())); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkReadDirect1M(b *testing.B) {
	benchBoth(b, func(b *testing.B, dir string) {
		os.WriteFile(dir+"/r", make([]byte, 64<<20), 0o644)
		fd, err := unix.Open(dir+"/r", unix.O_RDONLY, 0)
		if err != nil {
			b.Fatal(err)
		}
		defer unix.Close(fd)
		unix.Fsync(fd)
		p := make([]byte, 1<<20)
		b.SetBytes(1 << 20)
		for i := range b.N {
			if i%64 == 0 {
				unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)
			}
			unix.Pread(fd, p, int64(i%64)<<20)
		}
	})
}

func BenchmarkCreateUnlink(b *testing.B) {
	benchBoth(b, func(b *testing.B, dir string) {
		for b.Loop() {
			fd, err := unix.Open(dir+"/c", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
			if err != nil {
				b.Fatal(err)
			}
			unix.Close(fd)
			unix.Unlink(dir + "/c")
		}
	})
}

func BenchmarkStatUncached(b *testing.B) {
	benchBoth(b, func(b *testing.B, dir string) {
		os.WriteFile(dir+"/s", nil, 0o644)
		var st unix.Statx_t
		for b.Loop() {
			if err := unix.Statx(unix.AT_FDCWD, dir+"/s", unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st); err != nil {
				b.Fatal(err)
			}
		}
	})
}
