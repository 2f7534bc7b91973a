package browse

import (
	"context"
	"fmt"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"graphvol/index"
)

const estale = fuse.Status(unix.ESTALE)

// volume is a snapshot that is open for reading. users, used and gone are guarded by FS.mu.
type volume struct {
	snap  index.Snapshot
	rd    Reader
	users int
	used  uint64 // FS.mu.clock at the last use
	gone  bool   // deleted: the last user closes it
}

// acquire resolves a node id, opening its snapshot if it isn't. The caller must release the volume.
func (f *FS) acquire(id uint64) (*volume, uint64, fuse.Status) {
	seq, ino := splitID(id)
	if v := f.acquireOpen(seq); v != nil {
		return v, ino, fuse.OK
	}
	snaps, err := f.cat.Snapshots()
	if err != nil {
		return nil, 0, f.failed(nil, 0, err)
	}
	for _, s := range snaps {
		if s.Seq&seqMask == seq && s.State == index.StateComplete {
			v, err := f.openVolume(s)
			if err != nil {
				return nil, 0, f.failed(&volume{snap: s}, 0, err)
			}
			return v, ino, fuse.OK
		}
	}
	return nil, 0, estale
}

func (f *FS) acquireOpen(seq uint64) *volume {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.mu.open[seq]
	if v != nil {
		f.useLocked(v)
	}
	return v
}

func (f *FS) useLocked(v *volume) {
	f.mu.clock++
	v.used = f.mu.clock
	v.users++
}

// openVolume opens a complete snapshot and acquires it. Two callers may open it at the same time; one reader stays.
func (f *FS) openVolume(s index.Snapshot) (*volume, error) {
	rd, err := f.cat.Reader(background(), s)
	if err != nil {
		return nil, fmt.Errorf("open snapshot %s: %w", s.Name, err)
	}
	f.mu.Lock()
	var closing []*volume
	v := f.mu.open[s.Seq&seqMask]
	switch {
	case v == nil:
		v = &volume{snap: s, rd: rd}
		f.mu.open[s.Seq&seqMask] = v
		closing = f.evictLocked()
	default:
		closing = append(closing, &volume{snap: s, rd: rd})
	}
	f.useLocked(v)
	f.mu.Unlock()
	f.closeAll(closing)
	return v, nil
}

// evictLocked takes the volume out that hasn't been used for longest, if there are too many. It returns what the caller has to close.
func (f *FS) evictLocked() []*volume {
	if len(f.mu.open) <= maxOpen {
		return nil
	}
	var oldest *volume
	for _, v := range f.mu.open {
		if v.users == 0 && v.used > 0 && (oldest == nil || v.used < oldest.used) {
			oldest = v
		}
	}
	if oldest == nil {
		return nil
	}
	delete(f.mu.open, oldest.snap.Seq&seqMask)
	return []*volume{oldest}
}

func (f *FS) release(v *volume) {
	f.mu.Lock()
	v.users--
	last := v.gone && v.users == 0
	f.mu.Unlock()
	if last {
		f.closeAll([]*volume{v})
	}
}

func (f *FS) closeAll(vs []*volume) {
	for _, v := range vs {
		if err := v.rd.Close(); err != nil {
			f.log.Warn("close a snapshot", "snapshot", v.snap.Name, "err", err)
		}
	}
}

// Changed must be called after a snapshot was begun, completed, failed or deleted: it wakes those that wait for a seal, closes deleted snapshots, but for those of
// an Alone, and drops their names from the kernel's cache. It must not be called from within a request.
func (f *FS) Changed() error {
	snaps, err := f.cat.Snapshots()
	f.mu.Lock()
	close(f.mu.changed)
	f.mu.changed = make(chan struct{})
	f.mu.Unlock()
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	names := make(map[string]string)
	complete := make(map[string]bool)
	for _, s := range snaps {
		if visible(s) {
			names[s.ID] = s.Name
			complete[s.ID] = s.State == index.StateComplete
		}
	}
	f.mu.Lock()
	notify := f.mu.notify
	var gone []string
	for id, name := range f.mu.names {
		if names[id] == "" {
			gone = append(gone, name)
		}
	}
	f.mu.names = names
	var closing []*volume
	for seq, v := range f.mu.open {
		if complete[v.snap.ID] || f.alone != nil {
			continue
		}
		delete(f.mu.open, seq)
		v.gone = true
		if names[v.snap.ID] == "" {
			gone = append(gone, v.snap.Name)
		}
		if v.users == 0 {
			closing = append(closing, v)
		}
	}
	f.mu.Unlock()
	f.closeAll(closing)
	for _, name := range gone {
		if notify != nil {
			notify.EntryNotify(RootID, name) // fails if the kernel hasn't cached it
		}
	}
	return nil
}

// Close closes all snapshots. Requests must have ended.
func (f *FS) Close() {
	f.mu.Lock()
	var all []*volume
	for seq, v := range f.mu.open {
		delete(f.mu.open, seq)
		all = append(all, v)
	}
	f.mu.Unlock()
	f.closeAll(all)
}

// pollSeal is how often a wait for a seal looks by itself, in case that Changed isn't called.
const pollSeal = time.Second

// find looks a name up in .snapshots, waiting if it is pending.
func (f *FS) find(cancel <-chan struct{}, name string) (index.Snapshot, fuse.Status) {
	for {
		f.mu.Lock()
		changed := f.mu.changed
		f.mu.Unlock()
		snaps, err := f.cat.Snapshots()
		if err != nil {
			return index.Snapshot{}, f.failed(nil, 0, err)
		}
		s, ok := byName(snaps, name)
		if !ok {
			return s, fuse.ENOENT
		}
		if s.State == index.StateComplete {
			f.remember(s)
			return s, fuse.OK
		}
		wait, stop := context.WithTimeout(background(), pollSeal)
		select {
		case <-changed:
		case <-wait.Done():
		case <-cancel:
			stop()
			return s, fuse.EINTR
		}
		stop()
	}
}

// remember notes a name that the kernel is about to cache.
func (f *FS) remember(s index.Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.names[s.ID] = s.Name
}

func byName(snaps []index.Snapshot, name string) (index.Snapshot, bool) {
	for _, s := range snaps {
		if s.Name == name && visible(s) {
			return s, true
		}
	}
	return index.Snapshot{}, false
}

// visible: complete or on its way.
func visible(s index.Snapshot) bool {
	return s.Name != "" && (s.State == index.StateComplete || s.State == index.StatePending)
}
