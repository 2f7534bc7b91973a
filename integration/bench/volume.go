package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"graphvol/integration/volume"
)

// volume makes a volume, not mounted yet, below the work directory.
func (b *bench) volume(name string) (*volume.Volume, error) {
	return b.volumeIn(filepath.Join(b.dir, name))
}

// volumeIn is volume, in a directory that may have it already.
func (b *bench) volumeIn(dir string) (*volume.Volume, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return volume.New(volume.Options{Bin: b.bin, Dir: dir})
}

// remove unmounts the volume and deletes all of it.
func (b *bench) remove(v *volume.Volume) error {
	return errors.Join(v.Close(), os.RemoveAll(v.Dir))
}

// noteRSS remembers the highest memory use of any server.
func (b *bench) noteRSS(ctx context.Context, v *volume.Volume) error {
	st, err := v.Status(ctx)
	if err != nil {
		return err
	}
	peak, err := volume.PeakRSS(st.ServerPID)
	b.rss = max(b.rss, peak)
	return err
}
