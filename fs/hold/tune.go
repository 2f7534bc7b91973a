package hold

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// Tuning is what can be set for the cache of one mount; zero values leave the kernel's.
type Tuning struct {
	ReadAheadKB   int   // read_ahead_kb
	MaxDirtyBytes int64 // bound of dirty pages (max_bytes), in place of the strict limit that every FUSE mount has
}

// Tune sets the mount's limits in /sys/class/bdi. They can be set once the first server is ready, and last as long as the mount. It needs root; without it, or with
// a kernel that lacks one of them (max_bytes came with 6.2), the error says what could not be set, and the mount is slower, nothing else.
func Tune(m Mount, t Tuning) error {
	dir := filepath.Join("/sys/class/bdi", fmt.Sprintf("%d:%d", m.Major, m.Minor))
	set := func(name string, value int64) error {
		return os.WriteFile(filepath.Join(dir, name), []byte(strconv.FormatInt(value, 10)), 0)
	}
	var errs []error
	if t.ReadAheadKB > 0 {
		errs = append(errs, set("read_ahead_kb", int64(t.ReadAheadKB)))
	}
	if t.MaxDirtyBytes > 0 {
		// The bound first: without it, a mount with no strict limit may fill all memory with dirty pages.
		if err := set("max_bytes", t.MaxDirtyBytes); err != nil {
			errs = append(errs, err)
		} else {
			errs = append(errs, set("strict_limit", 0))
		}
	}
	return errors.Join(errs...)
}
