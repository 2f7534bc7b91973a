package cow

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// A complete snapshot holds what the volume held at its barrier, but the backing's disk may lack some of that yet: nobody need have synced
// it. A power cut takes it back then, and if an inode's change time has reached the disk and an overwritten block hasn't, nothing
// tells that the volume differs from the snapshot. Therefore the dirty map of a sealed epoch stays in the index until it is settled:
//
//	the map of a sealed epoch is dropped  ⇒  the backing was synced after the epoch's barrier    (I1)
//
// After a power cut before that, everything that the map names counts as changed.
//
// A sync of a whole filesystem makes those wait who sync a file meanwhile, such as the database. So there is some time before it, in which the kernel
// writes most by itself, and one sync settles all that was sealed meanwhile.

// settler has the sealed epochs that are not settled.
type settler struct {
	wake  chan struct{} // holds a token while something may be settled
	after time.Duration
	mu    struct {
		sync.Mutex
		unsettled
		// doubted were left by an earlier mount. What they name is in doubt, and in the running epoch; so they are needed until a
		// later epoch is sealed.
		doubted unsettled
	}
}

// unsettled are sealed epochs whose dirty maps are in the index. full: a full snapshot sealed one of them, and anything may lack.
type unsettled struct {
	epochs []uint64
	full   bool
}

func (u *unsettled) none() bool { return len(u.epochs) == 0 && !u.full }

func (u *unsettled) add(o unsettled) {
	u.epochs = append(u.epochs, o.epochs...)
	u.full = u.full || o.full
}

// sealed hands over the epochs that a complete snapshot covers.
func (s *settler) sealed(u unsettled) {
	s.mu.Lock()
	s.mu.add(u)
	s.mu.add(s.mu.doubted)
	s.mu.doubted = unsettled{}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default: // it is awake
	}
}

// leftUnsettled takes over what an earlier mount left. lived: none of it is lost yet, so it needs no seal to be settled.
func (v *Volume) leftUnsettled(u unsettled, lived bool) {
	if u.none() {
		return
	}
	if lived {
		v.settler.sealed(u)
	} else {
		v.settler.mu.doubted = u
	}
}

func (s *settler) take() (u unsettled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, s.mu.unsettled = s.mu.unsettled, unsettled{}
	return u
}

// settle syncs the backing after seals, in the background: a snapshot is complete without it, and the database doesn't wait.
func (v *Volume) settle() {
	defer v.wg.Done()
	for {
		select {
		case <-v.settler.wake:
		case <-v.ctx.Done():
			return
		}
		select {
		case <-time.After(v.settler.after):
		case <-v.ctx.Done():
			return
		}
		u := v.settler.take()
		if u.none() {
			continue // the time before had it too
		}
		synced := make(chan error, 1)
		go func() { synced <- v.tree.SyncFS() }()
		var err error
		select {
		case err = <-synced:
		case <-v.ctx.Done(): // the next mount goes on with it
			return
		}
		if err == nil {
			err = v.dropSettled(u)
		} else {
			v.log.Error("the disk below could not write what it had accepted; the next snapshot is a full one", "err", err)
			v.setFull()
		}
		if err != nil {
			v.log.Warn("dirty maps of sealed epochs stay until after the next snapshot", "epochs", u.epochs, "err", err)
			v.settler.mu.Lock()
			v.settler.mu.add(u)
			v.settler.mu.Unlock()
		}
	}
}

func (v *Volume) dropSettled(u unsettled) error {
	err := v.db.DropEpochs(u.epochs...)
	if err == nil && u.full {
		err = v.db.PutMeta(metaUnsettled, nil)
	}
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	return nil
}

// forget drops what was kept of a sealed epoch, but for its dirty map in the index.
func (v *Volume) forget(e *Ended) {
	u := unsettled{full: e.Full()}
	for _, p := range *e.parts.Load() {
		if err := v.store(p); err != nil {
			v.log.Warn("leftovers of a sealed epoch; the next snapshot is a full one", "epoch", p.ep.Number(), "err", err)
			v.setFull()
		}
		u.epochs = append(u.epochs, p.ep.Number())
	}
	if u.full && errors.Join(v.db.PutMeta(metaUnsettled, []byte("1")), v.db.PutMeta(metaFull, nil)) != nil {
		v.log.Warn("after the next mount the first snapshot may be a full one")
	}
	v.settler.sealed(u)
}
