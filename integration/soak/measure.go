// Package soak uses a volume for long, and measures that nothing grows with the number of snapshots and files that came and went.
package soak

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"graphvol/integration/volume"
)

// Measure is what a volume takes at one moment.
type Measure struct {
	Goroutines     int64 // of the server
	OpenFiles      int64 // of the server, without packs
	OpenPacks      int64 // of the server, which keeps some open for the next reader
	Heap, Resident int64 // bytes, of the server
	HolderFiles    int64
	HolderResident int64
	Disk           map[string]Usage // of the entries of the state directory
}

// Usage is what is below a path.
type Usage struct{ Files, Bytes int64 } // Bytes are those of the disk, not the files' lengths

// Parts are the entries of the state directory that are measured one by one.
func Parts() []string {
	return []string{"index.db", "index.intents", "epochs", "markers", "nodes", "preimages", "fingerprints", "log", "store/packs", "store/manifests", "store/.tmp"}
}

// Take measures a mounted volume.
func Take(ctx context.Context, v *volume.Volume) (Measure, error) {
	var m Measure
	st, err := v.Status(ctx)
	if err != nil {
		return m, err
	}
	s := st.Server
	m.Goroutines, m.Heap, m.Resident = s.Goroutines, s.HeapBytes, s.ResidentBytes
	m.OpenPacks = openPacks(st.ServerPID)
	m.OpenFiles = s.OpenFiles - m.OpenPacks
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", st.HolderPID))
	if err != nil {
		return m, err
	}
	m.HolderFiles = int64(len(fds))
	if m.HolderResident, err = volume.RSS(st.HolderPID); err != nil {
		return m, err
	}
	m.Disk = make(map[string]Usage)
	for _, part := range append(Parts(), ".") {
		if m.Disk[part], err = usage(filepath.Join(v.StateDir(), part)); err != nil {
			return m, err
		}
	}
	return m, nil
}

func openPacks(pid int) (n int64) {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, l := range links {
		if path, err := os.Readlink(l); err == nil && strings.Contains(path, "/store/packs/") {
			n++
		}
	}
	return n
}

// usage sums up files; those that vanish meanwhile and paths that don't exist count nothing.
func usage(path string) (Usage, error) {
	var u Usage
	err := filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return ignoreMissing(err)
		}
		info, err := d.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		u.Files++
		u.Bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
		return nil
	})
	return u, err
}

func ignoreMissing(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// slack is for the goroutines and descriptors of a call that is under way or has just ended.
const slack = 8

// Settled measures until goroutines and descriptors of calls that have just ended are gone, but not for ever: what stays is told.
func Settled(ctx context.Context, v *volume.Volume, before Measure) (Measure, error) {
	for deadline := time.Now().Add(5 * time.Second); ; {
		m, err := Take(ctx, v)
		settled := m.Goroutines <= before.Goroutines+slack && m.OpenFiles <= before.OpenFiles+slack
		if err != nil || settled || before.Goroutines == 0 || time.Now().After(deadline) {
			return m, err
		}
		select {
		case <-ctx.Done():
			return m, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// String is one line of figures, of the disk in KiB and files.
func (m Measure) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d goroutines, %d+%d fds, heap %d KiB, rss %d KiB, holder %d fds %d KiB;", m.Goroutines, m.OpenFiles, m.OpenPacks, m.Heap>>10, m.Resident>>10,
		m.HolderFiles, m.HolderResident>>10)
	var parts []string
	for p := range m.Disk {
		parts = append(parts, p)
	}
	slices.Sort(parts)
	for _, p := range parts {
		fmt.Fprintf(&b, " %s %d/%d", p, m.Disk[p].Bytes>>10, m.Disk[p].Files)
	}
	return b.String()
}
