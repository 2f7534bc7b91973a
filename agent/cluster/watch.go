package cluster

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// watchPause is how long is waited before etcd is asked again after it failed.
const watchPause = 2 * time.Second

// Watch calls fn with all records, now and whenever one has changed, until ctx ends.
func (r *Records) Watch(ctx context.Context, fn func([]Record)) {
	watch(ctx, r.etcd, r.keys.snapshots(), func(ctx context.Context) error {
		all, err := r.List(ctx)
		if err == nil {
			fn(all)
		}
		return err
	})
}

// watch calls read now and after changes below a prefix, until ctx ends. When etcd fails it begins anew.
func watch(ctx context.Context, etcd *Etcd, prefix string, read func(context.Context) error) {
	for ctx.Err() == nil {
		if err := etcd.Wait(ctx); err != nil {
			return
		}
		wctx, cancel := context.WithCancel(ctx)
		changes := etcd.Watch(clientv3.WithRequireLeader(wctx), prefix, clientv3.WithPrefix())
		err := read(ctx) // after the watch has begun: nothing falls in between
		for err == nil {
			res, ok := <-changes
			if !ok || res.Err() != nil {
				break
			}
			err = read(ctx)
		}
		cancel()
		select {
		case <-ctx.Done():
		case <-time.After(watchPause):
		}
	}
}
