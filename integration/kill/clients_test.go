package kill

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// allClients are what TestKilled runs, beside the random operations of package model.
func allClients() map[string]maker {
	return map[string]maker{
		"log": logClient, "mapped": mappedClient, "replaced": replacedClient, "names": namesClient, "links": linksClient,
		"xattrs": xattrsClient, "buffered": bufferedClient, "unlinked": unlinkedClient, "lister": listerClient, "locked": lockedClient,
	}
}

// file opens a file of c's, until the clients are closed.
func (c *client) file(t testing.TB, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|flags, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	c.closers = append(c.closers, f.Close)
	return f
}

func record(i uint64) []byte {
	p := make([]byte, 64)
	for at := 0; at < len(p); at += 8 {
		binary.LittleEndian.PutUint64(p[at:], i*0x9e3779b97f4a7c15+uint64(at))
	}
	return p
}

// logClient appends numbered records and syncs each, as databases' logs do.
func logClient(t testing.TB, dir string) *client {
	c := &client{}
	f := c.file(t, filepath.Join(dir, "log"), os.O_APPEND)
	var want bytes.Buffer
	c.step = func(i uint64) error {
		want.Write(record(i))
		return errors.Join(
			c.call("append", func() error { _, err := f.Write(record(i)); return err }),
			c.call("fdatasync", func() error { return unix.Fdatasync(int(f.Fd())) }),
		)
	}
	c.check = func(dir string) error { return sameFile(filepath.Join(dir, "log"), want.Bytes()) }
	return c
}

// mappedClient stores to a shared mapping and syncs it.
func mappedClient(t testing.TB, dir string) *client {
	const page, pages = 4096, 256
	c := &client{}
	f := c.file(t, filepath.Join(dir, "mapped"), 0)
	if err := f.Truncate(page * pages); err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, page*pages, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	c.closers = append(c.closers, func() error { return unix.Munmap(m) })
	want := make([]byte, page*pages)
	c.step = func(i uint64) error {
		at := i * 7 % pages * page
		copy(want[at+i%60*64:], record(i))
		return c.call("store and msync", func() error {
			copy(m[at+i%60*64:], record(i))
			return unix.Msync(m[at:at+page], unix.MS_SYNC)
		})
	}
	c.check = func(dir string) error { return sameFile(filepath.Join(dir, "mapped"), want) }
	return c
}

// replacedClient writes a new file and renames it over the old one, and reads what is there then.
func replacedClient(t testing.TB, dir string) *client {
	c := &client{}
	tmp, name := filepath.Join(dir, "tmp"), filepath.Join(dir, "file")
	var last []byte
	c.step = func(i uint64) error {
		last = record(i)
		var f *os.File
		err := c.call("create", func() (err error) { f, err = os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644); return err })
		if err != nil {
			return err
		}
		return errors.Join(
			c.call("write", func() error { _, err := f.Write(last); return err }),
			c.call("fsync", f.Sync), c.call("close", f.Close),
			c.call("rename over a file", func() error { return os.Rename(tmp, name) }),
			c.call("read", func() error { return sameFile(name, last) }),
		)
	}
	c.check = func(dir string) error {
		return errors.Join(sameFile(filepath.Join(dir, "file"), last), sameNames(dir, map[string]bool{"file": true}))
	}
	return c
}

// bufferedClient writes without syncing, cuts, preallocates and punches holes.
func bufferedClient(t testing.TB, dir string) *client {
	const most = 4 << 20
	c := &client{}
	f := c.file(t, filepath.Join(dir, "buffered"), 0)
	rng := rand.New(rand.NewPCG(1, 2))
	var want []byte
	grow := func(n int) { want = append(want, make([]byte, max(0, n-len(want)))...) }
	c.step = func(i uint64) error {
		off, n := rng.IntN(most-100_000), 1+rng.IntN(100_000)
		switch i % 16 {
		case 5:
			want = want[:min(off, len(want))]
			grow(off)
			return c.call("ftruncate", func() error { return f.Truncate(int64(off)) })
		case 9:
			grow(off + n)
			return c.call("fallocate", func() error { return unix.Fallocate(int(f.Fd()), 0, int64(off), int64(n)) })
		case 13:
			clear(want[min(off, len(want)):min(off+n, len(want))])
			return c.call("punch a hole", func() error {
				return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(n))
			})
		}
		p := bytes.Repeat(record(i), n/64+1)[:n]
		grow(off + n)
		copy(want[off:], p)
		got := make([]byte, n)
		return errors.Join(
			c.call("pwrite", func() error { _, err := f.WriteAt(p, int64(off)); return err }),
			c.call("pread", func() error { _, err := f.ReadAt(got, int64(off)); return err }),
			func() error {
				if !bytes.Equal(got, p) {
					return fmt.Errorf("read something else at %d than was written", off)
				}
				return nil
			}(),
		)
	}
	c.check = func(dir string) error { return sameFile(filepath.Join(dir, "buffered"), want) }
	return c
}

// unlinkedClient goes on using a file that has no name any more: only the holder can give it to the next server.
func unlinkedClient(t testing.TB, dir string) *client {
	c := &client{}
	name := filepath.Join(dir, "gone")
	c.step = func(i uint64) error {
		var f *os.File
		err := c.call("create", func() (err error) { f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); return err })
		if err != nil {
			return err
		}
		defer f.Close()
		if err := c.call("unlink", func() error { return unix.Unlink(name) }); err != nil {
			return err
		}
		for j := range uint64(50) {
			err := c.call("write", func() error { _, err := f.WriteAt(record(i+j), int64(j)*64); return err })
			if err == nil && j%10 == 0 {
				err = c.call("fsync", f.Sync)
			}
			if err != nil {
				return err
			}
		}
		for j := range uint64(50) {
			got := make([]byte, 64)
			if err := c.call("read", func() error { _, err := f.ReadAt(got, int64(j)*64); return err }); err != nil {
				return err
			}
			if !bytes.Equal(got, record(i+j)) {
				return fmt.Errorf("record %d of an unlinked file isn't what was written", j)
			}
		}
		var st unix.Stat_t
		err = c.call("fstat", func() error { return unix.Fstat(int(f.Fd()), &st) })
		if err == nil && (st.Nlink != 0 || st.Size != 50*64) {
			err = fmt.Errorf("an unlinked file has %d names and %d bytes", st.Nlink, st.Size)
		}
		return err
	}
	c.check = func(dir string) error { return sameNames(dir, nil) }
	return c
}

// lockedClient holds a lock, and tries to get it a second time.
func lockedClient(t testing.TB, dir string) *client {
	c := &client{}
	held := c.file(t, filepath.Join(dir, "lock"), 0)
	if err := unix.Flock(int(held.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	c.step = func(uint64) error {
		var f *os.File
		err := c.call("open", func() (err error) { f, err = os.Open(filepath.Join(dir, "lock")); return err })
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("a lock that is held was given again: %v", err)
		}
		return nil
	}
	c.check = func(dir string) error { return sameFile(filepath.Join(dir, "lock"), nil) }
	return c
}
