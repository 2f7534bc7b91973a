package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"graphvol/chunkstore/target"
	"graphvol/snapshot"
)

// clusters makes the manifests of the cluster's snapshots on the remote those of the store. It comes after the head: the volume's own snapshots are there then. The index
// has no rows of them, so the remote is asked once for what it has.
func (w *round) clusters(ctx context.Context) error {
	list, err := w.cfg.Local.Target.List(ctx, snapshot.ClusterPrefix)
	if err != nil {
		return err
	}
	if w.Remote.clustered == nil {
		there, err := w.target.List(ctx, snapshot.ClusterPrefix)
		if err != nil {
			return fmt.Errorf("listing the cluster's manifests: %w", err)
		}
		w.Remote.clustered = make(map[string]bool)
		for _, in := range there {
			w.Remote.clustered[in.Name] = true
		}
	}
	kept := make(map[string]bool, len(list))
	for _, in := range list {
		kept[in.Name] = true
		if w.Remote.clustered[in.Name] {
			continue
		}
		if err := copyCluster(ctx, w.cfg.Local.Target, w.target, in.Name); err != nil {
			return err
		}
		w.Remote.clustered[in.Name] = true
		w.done.Bytes += in.Size
	}
	for name := range w.Remote.clustered {
		if kept[name] {
			continue
		}
		if err := w.target.Remove(ctx, name); err != nil {
			return fmt.Errorf("removing a manifest of the cluster: %w", err)
		}
		delete(w.Remote.clustered, name)
	}
	return nil
}

// copyCluster copies one manifest of the cluster. One that is deleted meanwhile isn't missed.
func copyCluster(ctx context.Context, from, to target.Target, name string) error {
	p, err := target.Get(ctx, from, name, snapshot.MaxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		_, err = stored(target.Put(ctx, to, name, p))
	}
	if err != nil {
		return fmt.Errorf("copying the cluster's manifest %s: %w", name, err)
	}
	return nil
}

// isCluster tells whether an object is a manifest of a snapshot of the cluster.
func isCluster(name string) bool { return strings.HasPrefix(name, snapshot.ClusterPrefix) }

// readCluster compares a manifest of the cluster with the store's. Of one that the store doesn't have a round decides.
func (s *scrub) readCluster(ctx context.Context, name string) error {
	p, err := target.Get(ctx, s.content, name, snapshot.MaxManifest)
	if err != nil {
		return err
	}
	own, err := target.Get(ctx, s.cfg.Local.Target, name, snapshot.MaxManifest)
	if err == nil && !bytes.Equal(p, own) {
		return errors.New("it isn't the manifest of the cluster that was written")
	}
	return ignoreGone(err)
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// CopyClusters copies the manifests of the cluster's snapshots to another place, as a remote is attached.
func (v *View) CopyClusters(ctx context.Context, to target.Target) error {
	list, err := v.Target.List(ctx, snapshot.ClusterPrefix)
	if err != nil {
		return err
	}
	for _, in := range list {
		if err := copyCluster(ctx, v.Target, to, in.Name); err != nil {
			return err
		}
	}
	return nil
}
