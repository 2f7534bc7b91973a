package cow

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"graphvol/fs/cow/epoch"
	"graphvol/internal/durable"
)

// marker says, durably, that an epoch has begun and its dirty map isn't in the index. It is there before the epoch's first change. If
// intents can't be recorded, it is renamed, which needs no space: after a power cut everything then counts as dirty.
type marker struct {
	dir string
	n   uint64
}

const (
	markerLive   = ".live"
	markerUnsafe = ".unsafe"
)

func (v *Volume) marker(n uint64) marker { return marker{v.dirs.markers, n} }

func (m marker) path(suffix string) string {
	return filepath.Join(m.dir, strconv.FormatUint(m.n, 10)+suffix)
}

func (m marker) create() error {
	f, err := os.OpenFile(m.path(markerLive), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return durable.SyncDir(m.dir)
}

func (m marker) unsafe() error {
	if err := os.Rename(m.path(markerLive), m.path(markerUnsafe)); err != nil {
		return err
	}
	return durable.SyncDir(m.dir)
}

func (m marker) remove() error {
	for _, s := range []string{markerLive, markerUnsafe} {
		if err := os.Remove(m.path(s)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// removeFiles removes what an epoch has on disk outside the index. What can't be removed harms nobody, and is tried again before the next barrier.
func (v *Volume) removeFiles(n uint64) {
	err := errors.Join(epoch.Delete(v.dirs.epochs, n), v.marker(n).remove())
	if err == nil {
		return
	}
	v.log.Warn("files of an epoch that nothing needs any more stay for now", "epoch", n, "err", err)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.left = append(v.mu.left, n)
}

// removeLeft tries again to remove files. A number that was used again by now has files that are needed.
func (v *Volume) removeLeft() {
	v.mu.Lock()
	left := v.mu.left
	v.mu.left = nil
	v.mu.Unlock()
	for _, n := range left {
		if n != v.run.Load().number {
			v.removeFiles(n)
		}
	}
}

// readMarkers gives the epochs with a marker, and whether all that happened in them is announced.
func readMarkers(dir string) (map[uint64]bool, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("markers of epochs: %w", err)
	}
	all := map[uint64]bool{}
	for _, d := range list {
		ext := filepath.Ext(d.Name())
		n, err := strconv.ParseUint(strings.TrimSuffix(d.Name(), ext), 10, 64)
		if err != nil || ext != markerLive && ext != markerUnsafe {
			continue
		}
		safe, known := all[n]
		all[n] = ext == markerLive && (!known || safe)
	}
	return all, nil
}

// checkMarks sees to it that nothing is missed when the disk below the running epoch's files has failed.
func (v *Volume) checkMarks(r *running) {
	if !r.ep.Lost() {
		return
	}
	r.ep.Confess()
	if !r.lost.Swap(true) {
		v.log.Error("the disk of the state directory fails: marks are in memory only, and the next snapshot is a full one", "epoch", r.number)
		v.intentsBroken(r, r.ep.DurableErr())
		v.setFull()
	}
}

// intentsBroken is called when an intent could not be made durable.
func (v *Volume) intentsBroken(r *running, err error) {
	c := &r.intents
	c.breaking.Lock()
	defer c.breaking.Unlock()
	if c.broken.Load() {
		return
	}
	defer c.broken.Store(true)
	v.log.Error("changes can't be announced; if the power fails before the next snapshot, that one reads everything",
		"epoch", r.number, "err", err)
	if err := v.marker(r.number).unsafe(); err != nil {
		v.log.Error("and this could not be noted, so files are synced once before they change", "epoch", r.number, "err", err)
		c.unnoted.Store(true)
	}
}
