package agent

import (
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/grpc/codes"

	"graphvol/fs/hold"
)

// sameDir reports whether two paths lead to one directory: by their names, or by what is there, which bind mounts don't hide.
func sameDir(a, b string) bool {
	if a == b {
		return true
	}
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// inside reports whether path is dir or lies below it, by names or by what is there. Both are canonical; path needn't exist.
func inside(path, dir string) bool {
	if within(path, dir) {
		return true
	}
	of, err := os.Stat(dir)
	if err != nil {
		return false
	}
	for ; ; path = filepath.Dir(path) {
		if st, err := os.Stat(path); err == nil && os.SameFile(st, of) {
			return true
		}
		if path == filepath.Dir(path) {
			return false
		}
	}
}

// checkNotMounted refuses to serve one backing or one state twice, and to change what another volume watches behind its back.
func checkNotMounted(o MountOptions) error {
	mounts, err := hold.Volumes()
	if err != nil {
		return fmt.Errorf("read the mount table: %w", err)
	}
	for _, m := range mounts {
		f, err := ReadFacts(m.Source)
		for what, dir := range map[string]string{"backing directory": o.Backing, "state directory": o.State} {
			if dir != m.Source && inside(dir, m.Source) && !sameDir(dir, m.Source) {
				return refuse(codes.FailedPrecondition, fmt.Sprintf("the %s %s lies inside the state directory of the volume mounted at %s: choose another", what, dir, m.Point))
			}
		}
		switch overItself := f.Mount == f.Backing; {
		case sameDir(m.Source, o.State) || err == nil && f.Backing == o.Backing:
			return inUse(o.Backing, m.Point)
		case err != nil || overItself: // its backing can't be reached by a path
			continue
		case sameDir(f.Backing, o.Backing):
			return inUse(o.Backing, m.Point)
		}
		for what, dir := range map[string]string{"backing directory": o.Backing, "state directory": o.State, "mount point": o.Mount} {
			if inside(dir, f.Backing) {
				return behind(what, dir, f.Backing, m.Point)
			}
		}
		if inside(f.Backing, o.Backing) {
			return behind("backing directory", f.Backing, o.Backing, m.Point)
		}
	}
	return nil
}

func inUse(backing, point string) error {
	return refuse(codes.FailedPrecondition, fmt.Sprintf("%s is mounted at %s already: use it there, or unmount it first (graphvol umount %s)", backing, point, point))
}

func behind(what, dir, in, point string) error {
	return refuse(codes.FailedPrecondition, fmt.Sprintf("the %s %s lies inside the backing directory %s, and a volume is mounted at %s which would not see what changes there: choose another, or unmount that one first", what, dir, in, point))
}
