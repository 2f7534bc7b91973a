package soak

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

var files = flag.Int("soak.files", 2000, "files that TestFiles makes and removes")

const (
	filesInUse = 100
	epochs     = 10 // snapshots while files come and go
	// maxNames is how many changed names of a directory an epoch remembers.
	maxNames = 1 << 18
)

// TestFiles: files come and go, as a database's logs and temporary files do. The server and its state forget them: in the same epoch what
// isn't the name, and with the next snapshot that too.
func TestFiles(t *testing.T) {
	t.Parallel() // it waits for the disk more than it works
	v := rig.Mounted(t, volume.Options{})
	path := func(i int) string { return filepath.Join(v.Mount, fmt.Sprintf("tmp-%08d", i)) }
	start := time.Now()
	var early, late Measure
	for e := range epochs {
		per := *files / epochs
		for i := e * per; i < (e+1)*per; i++ {
			must(t, os.WriteFile(path(i), []byte("temporary"), 0o644))
			if i >= filesInUse {
				must(t, os.Remove(path(i-filesInUse)))
			}
		}
		busy, err := Take(t.Context(), v)
		must(t, err)
		// 40 bytes a name, and segments that double.
		if limit := int64(mib + 100*min(per, maxNames)); busy.Disk["epochs"].Bytes > limit {
			t.Errorf("in an epoch with %d files: more than %d bytes in epochs: %s", per, limit, busy)
		}
		replace(t, v, e)
		late, err = Settled(t.Context(), v, early)
		must(t, err)
		t.Logf("%d files, %v: %s", (e+1)*per, time.Since(start).Round(time.Second), late)
		if e == 0 {
			early = late
		}
	}
	flat(t, early, late, 1)
}

// replace takes snapshot n and deletes the one before.
func replace(t *testing.T, v *volume.Volume, n int) {
	t.Helper()
	_, err := v.Snapshot(t.Context(), fmt.Sprintf("s%d", n))
	must(t, err)
	if n > 0 {
		_, err = v.Run(t.Context(), "delete", v.Mount, fmt.Sprintf("s%d", n-1))
		must(t, err)
	}
	_, err = v.Run(t.Context(), "prune", v.Mount)
	must(t, err)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
