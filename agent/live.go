package agent

import (
	"context"
	"time"

	"graphvol/fs"
	"graphvol/fs/browse"
	"graphvol/fs/cow"
	"graphvol/index"
	"graphvol/snapshot"
)

// ended is an ended epoch on its way to a snapshot; *cow.Ended is one.
type ended interface {
	snapshot.Source
	SetID(snapshotID string)
}

// held is a volume whose gate is closed.
type held interface {
	// Cut is what Barrier is, if the gate has been closed all the time.
	Cut() (ended, time.Duration, error)
	// Release opens the gate, if it is closed. Nothing has ended.
	Release()
}

// live is what the service needs of a mounted volume.
type live interface {
	// Flush makes the kernel hand over every page that was written before the call.
	Flush(ctx context.Context) error
	Barrier(ctx context.Context) (ended, time.Duration, error)
	// Ready does what can be done before a hold, so that this takes less time.
	Ready(ctx context.Context) error
	// Hold closes the gate for the bound at most.
	Hold(ctx context.Context, bound time.Duration) (held, error)
	// WaitScan returns when changes made while the volume was unmounted are known.
	WaitScan(ctx context.Context) error
	changes
	Epoch() uint64
	// CountAsChanged makes the next snapshot a full one.
	CountAsChanged()
}

// liveVolume is the real one.
type liveVolume struct {
	*cow.Volume
	*fs.Flusher
}

var _ live = liveVolume{}

// Barrier is the volume's, with a nil interface on failure.
func (l liveVolume) Barrier(ctx context.Context) (ended, time.Duration, error) {
	e, pause, err := l.Volume.Barrier(ctx)
	if err != nil {
		return nil, 0, err
	}
	return e, pause, nil
}

// Hold is the volume's, with a nil interface on failure.
func (l liveVolume) Hold(ctx context.Context, bound time.Duration) (held, error) {
	h, err := l.Volume.Hold(ctx, bound)
	if err != nil {
		return nil, err
	}
	return heldVolume{h}, nil
}

// heldVolume is the real one.
type heldVolume struct{ *cow.Held }

// Cut is the volume's, with a nil interface on failure.
func (h heldVolume) Cut() (ended, time.Duration, error) {
	e, pause, err := h.Held.Cut()
	if err != nil {
		return nil, pause, err
	}
	return e, pause, nil
}

// Release is the volume's.
func (h heldVolume) Release() { h.Held.Release() }

// catalogue shows a repository's snapshots to the browser.
type catalogue struct{ *snapshot.Repo }

var _ browse.Catalogue = catalogue{}

// Reader is the repository's, as the browser's interface.
func (c catalogue) Reader(ctx context.Context, snap index.Snapshot) (browse.Reader, error) {
	rd, err := c.Repo.Reader(ctx, snap)
	if err != nil {
		return nil, err
	}
	return rd, nil
}
