package remote

import (
	"context"

	"graphvol/chunkstore/target"
)

// watched tells how requests that read from a target fare.
type watched struct {
	target.Target
	tell func(error)
}

// watch gives the target with its reads watched; tell may be nil.
func watch(t target.Target, tell func(error)) target.Target {
	if tell == nil {
		return t
	}
	return &watched{t, tell}
}

func (w *watched) Open(ctx context.Context, name string) (target.Object, error) {
	o, err := w.Target.Open(ctx, name)
	w.tell(err)
	if err != nil {
		return nil, err
	}
	return &watchedObject{o, w.tell}, nil
}

func (w *watched) List(ctx context.Context, prefix string) ([]target.Info, error) {
	list, err := w.Target.List(ctx, prefix)
	w.tell(err)
	return list, err
}

type watchedObject struct {
	target.Object
	tell func(error)
}

func (o *watchedObject) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := o.Object.ReadAt(ctx, p, off)
	o.tell(err)
	return n, err
}
