package snapshot

import (
	"context"
	"errors"
	"io"
	"os"

	"graphvol/chunkstore/target"
)

// spool is an object from afar in a file without a name.
type spool struct {
	*os.File
	size int64
}

func newSpool(ctx context.Context, dir string, obj target.Object) (*spool, error) {
	f, err := os.CreateTemp(dir, ".spool-*")
	if err != nil {
		return nil, err
	}
	s := &spool{f, obj.Size()}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	buf := make([]byte, 1<<20)
	for off := int64(0); off < s.size; off += int64(len(buf)) {
		p := buf[:min(int64(len(buf)), s.size-off)]
		n, err := obj.ReadAt(ctx, p, off)
		if n == len(p) {
			_, err = f.WriteAt(p, off)
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return s, nil
}

// ReadAt is target.Object's.
func (s *spool) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return s.File.ReadAt(p, off)
}

// Size is the object's length.
func (s *spool) Size() int64 { return s.size }

func (s *spool) source() target.Source { return io.NewSectionReader(s.File, 0, s.size) }
