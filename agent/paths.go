package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Canonical makes a path absolute and resolves its symbolic links. The last element may be missing, or be a mount
// whose server is dead; it is then left as it is.
func Canonical(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("make %q absolute: %w", path, err)
	}
	real, err := filepath.EvalSymlinks(abs)
	if err == nil {
		return real, nil
	}
	if abs == "/" || !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	dir, dirErr := filepath.EvalSymlinks(filepath.Dir(abs))
	if dirErr != nil {
		return "", err
	}
	return filepath.Join(dir, filepath.Base(abs)), nil
}

// within reports whether path is dir or lies below it. Both are canonical.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}
