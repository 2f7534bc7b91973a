package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

const pageSize = 4096

// fillPage makes a page half random, half zero bytes, as a database's pages compress.
func fillPage(rng *rand.Rand, p []byte) {
	for i := 0; i < pageSize/2; i += 8 {
		v := rng.Uint64()
		for k := range 8 {
			p[i+k] = byte(v >> (8 * k))
		}
	}
	clear(p[pageSize/2:])
}

// makePages writes a file of pages and makes it durable.
func makePages(path string, mib int, seed uint64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	rng := rand.New(rand.NewPCG(seed, 0))
	buf := make([]byte, 1<<20)
	for range mib {
		for at := 0; at < len(buf); at += pageSize {
			fillPage(rng, buf[at:at+pageSize])
		}
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	return f.Sync()
}

// changePages rewrites count different pages, chosen at random, and makes them durable.
func changePages(path string, count int, seed uint64) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	return rewritePages(path, rng.Perm(int(info.Size() / pageSize))[:count], seed)
}

// rewritePages gives pages other contents and makes them durable.
func rewritePages(path string, pages []int, seed uint64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	rng := rand.New(rand.NewPCG(seed, 2))
	page := make([]byte, pageSize)
	for _, n := range pages {
		fillPage(rng, page)
		if _, err := f.WriteAt(page, int64(n)*pageSize); err != nil {
			return err
		}
	}
	return f.Sync()
}

// scattered gives count of total pages: half are the same every time, the others differ; all are single pages anywhere in the file.
func scattered(total, count int, seed uint64) []int {
	same := rand.New(rand.NewPCG(0, 0)).Perm(total)[:count/2]
	return append(same, rand.New(rand.NewPCG(seed, 3)).Perm(total)[:count-len(same)]...)
}

// inRuns gives count of total pages in two runs: four fifths are the same run every time, the rest is a run anywhere in the file.
func inRuns(total, count int, seed uint64) []int {
	fixed := count * 4 / 5
	pages := make([]int, 0, count)
	for n := range fixed {
		pages = append(pages, total/50+n)
	}
	from := rand.New(rand.NewPCG(seed, 3)).IntN(total - count)
	for n := range count - fixed {
		pages = append(pages, from+n)
	}
	return pages
}

func hashFile(path string) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	h.Sum(sum[:0])
	return sum, err
}

// settle waits for the disk to have written what earlier runs left, so that the next starts on a quiet disk.
func settle() { unix.Sync() }

// dropCaches empties the kernel's caches; the error says that it can't be done.
func dropCaches() error {
	unix.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0); err != nil {
		return fmt.Errorf("dropping caches: %w", err)
	}
	return nil
}
