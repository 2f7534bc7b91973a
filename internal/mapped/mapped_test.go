package mapped

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

const size = 1 << 16

// file makes an allocated file. Cutting it off has the same effect on its mapping as a disk that fails.
func file(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(make([]byte, 2*size)); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestLeave(t *testing.T) {
	f := file(t)
	var m Memory
	defer m.UnmapAll()
	a, err := m.Map(f, 0, size)
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.Map(f, size, size)
	if err != nil {
		t.Fatal(err)
	}
	a[5], a[size-1], b[7] = 1, 2, 3
	if m.Do(func() { a[6] = 4 }) || m.Left() {
		t.Error("left without need")
	}
	if err := f.Truncate(size); err != nil { // what was in b can't be read any more
		t.Fatal(err)
	}
	runs := 0
	if left := m.Do(func() { runs++; b[9] = 5 }); !left || runs != 2 || !m.Left() {
		t.Errorf("after a fault: left %v, %d runs", left, runs)
	}
	if a[5] != 1 || a[6] != 4 || a[size-1] != 2 || b[9] != 5 {
		t.Errorf("after a fault: %d %d %d %d", a[5], a[6], a[size-1], b[9])
	}
	a[5] = 9
	var p [1]byte
	if _, err := f.ReadAt(p[:], 5); err != nil || p[0] != 1 {
		t.Errorf("the file has %d (%v) where the memory has left it with 1", p[0], err)
	}
}

// A fault elsewhere, and any other panic, isn't swallowed.
func TestOtherPanics(t *testing.T) {
	var m Memory
	for name, fn := range map[string]func(){"panic": func() { panic("x") }, "nil": func() { *(*int)(nil) = 1 }} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: swallowed", name)
				}
			}()
			m.Do(fn)
		}()
	}
}

// Several goroutines run into the fault at the same time.
func TestTogether(t *testing.T) {
	f := file(t)
	var m Memory
	defer m.UnmapAll()
	seg, err := m.Map(f, 0, size)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for k := range 16 {
		wg.Go(func() {
			for at := k; at < size; at += 16 {
				m.Do(func() { seg[at] = 1 })
			}
		})
	}
	wg.Wait()
	lost := 0
	for _, b := range seg {
		if b == 0 {
			lost++
		}
	}
	if lost > size/100 { // in the moment of leaving
		t.Errorf("%d of %d stores are lost", lost, size)
	}
}
