package agent

import (
	"context"

	"graphvol/fs/hold"
)

// Answers reports whether the mount that IsMounted has found is served. One that has just come up may still fail.
func Answers(ctx context.Context, o MountOptions) bool {
	m, ok, err := hold.MountAt(o.Mount)
	return err == nil && ok && isVolume(m) && hold.Answers(ctx, m)
}

// IsMounted reports whether a live mount is already what o asks for: the same backing, state and mount point.
func IsMounted(ctx context.Context, o MountOptions) bool {
	backing, err1 := Canonical(o.Backing)
	point, err2 := Canonical(o.Mount)
	if err1 != nil || err2 != nil {
		return false
	}
	if o.State == "" {
		o.State = DefaultState(backing)
	}
	state, err := Canonical(o.State)
	if err != nil {
		return false
	}
	m, ok, err := hold.MountAt(point)
	if err != nil || !ok || !isVolume(m) || m.Source != state || hold.Dead(ctx, point) {
		return false
	}
	f, err := ReadFacts(state)
	return err == nil && f.Backing == backing
}
