package agent

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"graphvol/fs/hold"
)

// Open connects to the service of the volume that a user names.
func Open(ctx context.Context, volume string, stderr io.Writer) (*Client, error) {
	p, err := Resolve(volume)
	if err != nil {
		return nil, err
	}
	return Connect(ctx, p, stderr)
}

// Volumes tells the volumes that are mounted.
func Volumes() ([]Place, error) {
	mounts, err := hold.Volumes()
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	var out []Place
	for _, m := range mounts {
		if !filepath.IsAbs(m.Source) {
			continue // not made by graphvol mount
		}
		out = append(out, Place{State: m.Source, Mount: m})
	}
	return out, nil
}

// IsStore reports whether it is a mounted copy of a store rather than a volume.
func (p Place) IsStore() bool { return isStoreCache(p.State) }
