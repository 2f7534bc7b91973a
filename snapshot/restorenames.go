package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"graphvol/snapshot/tree"
)

// find looks a name up; the error tells of names that are nearly it.
func (r *restorer) find(dir uint64, name string) (tree.Dirent, error) {
	if checkName(name) != nil {
		return tree.Dirent{}, fmt.Errorf("%w: %q is no name", ErrNoPath, name)
	}
	e, err := r.from.Lookup(r.ctx, dir, name)
	if !errors.Is(err, fs.ErrNotExist) {
		return e, unreadable(err)
	}
	list, err := r.from.ReadDir(r.ctx, dir)
	if err != nil {
		return tree.Dirent{}, unreadable(err)
	}
	var near []string
	for _, o := range list {
		if len(near) < 3 && similar(o.Name, name) {
			near = append(near, o.Name)
		}
	}
	if len(near) == 0 {
		return tree.Dirent{}, fmt.Errorf("%w: there is no %q in that directory", ErrNoPath, name)
	}
	return tree.Dirent{}, fmt.Errorf("%w: there is no %q, but %q", ErrNoPath, name, near)
}

// similar tells whether one name may have been meant by the other: they differ by case, or by two letters of many.
func similar(a, b string) bool {
	a, b = strings.ToLower(a), strings.ToLower(b)
	if a == b {
		return true
	}
	allowed := min(2, min(len(a), len(b))/3)
	if len(a)-len(b) > allowed || len(b)-len(a) > allowed {
		return false
	}
	return editDistance(a, b) <= allowed
}
