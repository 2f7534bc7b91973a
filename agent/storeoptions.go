package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc/codes"

	"graphvol/remote"
)

// DefaultCacheSize bounds the blocks that a mounted store keeps on disk.
const DefaultCacheSize = 1 << 30

// DefaultRefresh is how often a mounted store looks for new snapshots at most.
const DefaultRefresh = 30 * time.Second

// StoreOptions say which copy of a store to mount and how. They travel as JSON to the process that serves.
type StoreOptions struct {
	URLs       []string      `json:"urls"`
	Erasure    string        `json:"erasure,omitempty"`
	Mount      string        `json:"mount"`
	CacheDir   string        `json:"cache_dir,omitempty"` // each store has a directory in it, named after its id; empty: the user's
	CacheSize  int64         `json:"cache_size"`          // bytes
	Refresh    time.Duration `json:"refresh"`
	AllowOther bool          `json:"allow_other,omitempty"`
}

func (o *StoreOptions) spec(encrypt bool) remote.Spec {
	return remote.Spec{URLs: o.URLs, Erasure: o.Erasure, Encrypt: encrypt}
}

// String is the form in which options travel.
func (o StoreOptions) String() string {
	b, err := json.Marshal(o)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// ParseStoreOptions reads what String made.
func ParseStoreOptions(s string) (o StoreOptions, err error) {
	if err := json.Unmarshal([]byte(s), &o); err != nil {
		return o, fmt.Errorf("read options: %w", err)
	}
	return o, nil
}

// CheckFlags says whether the options that are no paths can be right; its errors are of usage.
func (o *StoreOptions) CheckFlags() error {
	switch {
	case o.CacheSize <= 0:
		return refuse(codes.InvalidArgument, "the cache must be larger than nothing: give --cache-size a size as 512M or 10G")
	case o.Refresh < 0:
		return refuse(codes.InvalidArgument, "the time between two looks for new snapshots can't be negative: give --refresh a time as 30s")
	}
	return checkSpec(o.spec(false))
}

// prepare checks the options, makes them canonical, and removes a dead mount that is in the way.
func (o *StoreOptions) prepare(ctx context.Context, notes io.Writer) (err error) {
	if err := o.CheckFlags(); err != nil {
		return err
	}
	if point, err := Canonical(o.Mount); err == nil {
		o.Mount = point
	}
	if err := cleanStaleAt(ctx, o.Mount, notes); err != nil {
		return err
	}
	if o.Mount, err = checkDir("the mount point", o.Mount); err != nil {
		return err
	}
	if list, err := os.ReadDir(o.Mount); err != nil || len(list) > 0 {
		return refuse(codes.FailedPrecondition, fmt.Sprintf("the mount point %s is not empty: name an empty directory, so that nothing is hidden", o.Mount))
	}
	if o.CacheDir == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return refuse(codes.FailedPrecondition, fmt.Sprintf("there is no place for a cache (%v): name one with --cache-dir", err))
		}
		o.CacheDir = filepath.Join(dir, "graphvol")
	}
	if o.CacheDir, err = Canonical(o.CacheDir); err != nil {
		return cannotUseCache(o.CacheDir, err)
	}
	if inside(o.CacheDir, o.Mount) {
		return refuse(codes.InvalidArgument, fmt.Sprintf("the cache directory %s lies inside the mount point %s, which hides it: choose another with --cache-dir", o.CacheDir, o.Mount))
	}
	return checkFuse()
}
