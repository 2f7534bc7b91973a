// Package dial opens targets by their URLs, as they stand in commands and configurations:
//
//	dir:/absolute/path
//	s3://bucket/prefix?endpoint=HOST:PORT&region=NAME&profile=NAME&style=path|host&insecure=1
//
// A URL never has credentials, because it is shown and stored; s3 says where those come from.
package dial

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"graphvol/chunkstore/target"
	"graphvol/chunkstore/target/s3"
)

// Open opens the target that a URL names. A directory is created if it is missing, but not the one that it is in: if that is missing, so is the disk, and
// the error wraps target.ErrUnavailable.
func Open(ctx context.Context, rawURL string) (target.Target, error) {
	loc, err := parse(rawURL)
	if err != nil {
		return nil, err
	}
	if loc.s3 == nil {
		return openDir(loc.dir)
	}
	b, err := s3.Open(ctx, *loc.s3)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Check returns an error if no target can have this URL. It opens nothing.
func Check(rawURL string) error {
	_, err := parse(rawURL)
	return err
}

// OpenThere is Open for a target that is only read: nothing is created, so that it may be on a read-only disk, and a path that isn't right leaves nothing behind.
func OpenThere(ctx context.Context, rawURL string) (target.Target, error) {
	loc, err := parse(rawURL)
	if err != nil {
		return nil, err
	}
	if loc.s3 != nil {
		return Open(ctx, rawURL)
	}
	st, err := os.Stat(loc.dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("open target %s: %w: there is no such directory; mount its disk, or correct the path", loc.dir, target.ErrUnavailable)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("open target: %w: %w", target.ErrDenied, err)
	case err != nil:
		return nil, fmt.Errorf("open target: %w", err)
	case !st.IsDir():
		return nil, fmt.Errorf("open target %s: it is no directory", loc.dir)
	}
	return disk{target.DirThere(loc.dir)}, nil
}

func openDir(dir string) (target.Target, error) {
	parent := filepath.Dir(dir)
	st, err := os.Stat(parent)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("open target %s: %w: there is no directory %s; mount its disk, or create it", dir, target.ErrUnavailable, parent)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("open target: %w: %w", target.ErrDenied, err)
	case err != nil:
		return nil, fmt.Errorf("open target: %w", err)
	case !st.IsDir():
		return nil, fmt.Errorf("open target %s: %s is no directory", dir, parent)
	}
	d, err := target.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	return disk{d}, nil
}

// location is a URL taken apart: a directory, or a bucket.
type location struct {
	dir string
	s3  *s3.Config
}

const forms = "there are dir:/path and s3://bucket/prefix?endpoint=HOST"

func parse(raw string) (location, error) {
	scheme, rest, ok := strings.Cut(raw, ":")
	switch {
	case !ok:
		return location{}, fmt.Errorf("a target is given by a URL: %s", forms)
	case scheme == "dir":
		return parseDir(rest)
	case scheme == "s3":
		return parseS3(raw)
	}
	return location{}, fmt.Errorf("no targets are known that begin with %q: %s", scheme+":", forms)
}

func parseDir(path string) (location, error) {
	switch {
	case strings.ContainsAny(path, "?\x00\n"):
		return location{}, fmt.Errorf("target %q: a directory has no options, and none of these characters", "dir:"+path)
	case !strings.HasPrefix(path, "/"):
		return location{}, fmt.Errorf("target %q: the path must be absolute, as in dir:/mnt/backup/volume", "dir:"+path)
	}
	clean := filepath.Clean(path)
	if clean == "/" {
		return location{}, errors.New("target dir:/: it must be a directory of its own")
	}
	return location{dir: clean}, nil
}

// options returns where the parameters of an s3 URL go.
func options(cfg *s3.Config) map[string]*string {
	return map[string]*string{"endpoint": &cfg.Endpoint, "region": &cfg.Region, "profile": &cfg.Profile, "style": &cfg.Style}
}

func parseS3(raw string) (location, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Port() != "" { // what it complains about may be a secret
		return location{}, errors.New("the s3 URL can't be read: it is s3://bucket/prefix?option=value")
	}
	switch {
	case u.User != nil:
		return location{}, errors.New("credentials don't belong into a URL; put them into ~/.aws/credentials (and profile=NAME here) or the environment")
	case u.Host == "" || u.Opaque != "":
		return location{}, errors.New("the s3 URL has no bucket: s3://bucket/prefix")
	case u.Fragment != "":
		return location{}, fmt.Errorf("target %s: what is after # has no meaning", raw)
	}
	cfg := &s3.Config{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/")}
	if err := setOptions(cfg, u.RawQuery); err != nil {
		return location{}, fmt.Errorf("target s3://%s%s: %w", u.Host, u.Path, err)
	}
	if err := cfg.Check(); err != nil {
		return location{}, fmt.Errorf("target s3://%s%s: %w", u.Host, u.Path, err)
	}
	return location{s3: cfg}, nil
}

func setOptions(cfg *s3.Config, query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("its options can't be read: they are name=value, with & between them")
	}
	to := options(cfg)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		all := values[name]
		if len(all) > 1 {
			return fmt.Errorf("option %s is given twice", name)
		}
		if name == "insecure" {
			if all[0] != "1" && all[0] != "0" {
				return errors.New("option insecure is 1 or 0")
			}
			cfg.Insecure = all[0] == "1"
			continue
		}
		field, ok := to[name]
		if !ok {
			known := append(slices.Collect(maps.Keys(to)), "insecure")
			slices.Sort(known)
			return fmt.Errorf("no option %q: there are %s", name, strings.Join(known, ", "))
		}
		*field = all[0]
	}
	return nil
}
