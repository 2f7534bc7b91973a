package dial

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"graphvol/chunkstore/target"
)

// disk is a directory on a disk that may be taken away. What can't be found then isn't missing.
type disk struct{ *target.Dir }

// Open opens an object.
func (d disk) Open(ctx context.Context, name string) (target.Object, error) {
	o, err := d.Dir.Open(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		err = d.away(err)
	}
	return o, err
}

// List lists objects.
func (d disk) List(ctx context.Context, prefix string) ([]target.Info, error) {
	list, err := d.Dir.List(ctx, prefix)
	if err == nil && len(list) == 0 {
		err = d.away(nil)
	}
	return list, err
}

// away gives the reason for what was found, or not found, if the directory isn't there.
func (d disk) away(err error) error {
	if _, serr := os.Stat(d.String()); errors.Is(serr, fs.ErrNotExist) {
		return fmt.Errorf("%w: there is no directory %s any more; mount its disk", target.ErrUnavailable, d)
	}
	return err
}
