// Package dial opens targets by their URLs.
package dial

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"graphvol/chunkstore/target"
)

// Open opens a target. Its error says what URLs there are.
func Open(_ context.Context, url string) (target.Target, error) {
	dir, ok := strings.CutPrefix(url, "dir:")
	if !ok || !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("%q is no target: name one as dir:/PATH", url)
	}
	return target.OpenDir(dir)
}
