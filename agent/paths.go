package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Canonical makes a path absolute and resolves its symbolic links. Elements at its end that don't exist, or that are a mount
// whose server is dead or that its owner keeps others out of, root too, stay as they are.
func Canonical(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("make %q absolute: %w", path, err)
	}
	if len(abs) >= unix.PathMax {
		return "", fmt.Errorf("a path of %d bytes: %w", len(abs), unix.ENAMETOOLONG) // no system call takes it, and each element is looked at
	}
	rest := ""
	for dir := abs; ; {
		real, err := filepath.EvalSymlinks(dir)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if dir == "/" || !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, unix.EACCES) && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		rest = filepath.Join(filepath.Base(dir), rest)
		dir = filepath.Dir(dir)
	}
}

// within reports whether path is dir or lies below it. Both are canonical.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}
