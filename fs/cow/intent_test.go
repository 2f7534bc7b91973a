package cow

import (
	"math"
	"testing"
)

// TestRegionsOfHugeFiles: regions beyond those that an intent can name are announced by announcing the file.
func TestRegionsOfHugeFiles(t *testing.T) {
	for _, tc := range []struct {
		off, n int64
		whole  bool
	}{
		{0, 1, false}, {1<<44 - 4096, 4096, false}, {1<<57 + 5, 100, false}, {regionAll<<regionShift - 1, 1, false},
		{regionAll << regionShift, 1, true}, {math.MaxUint32 << regionShift, 1, true}, {1 << 58, 1, true}, {1<<62 - 8, 8, true},
		{math.MaxInt64 - 4096, 4096, true}, {0, math.MaxInt64, true}, {math.MaxInt64, 5, true},
	} {
		w := wantRange(1, tc.off, tc.n)
		if whole := w.last-w.first >= maxRegions; whole != tc.whole || w.last >= regionAll || w.first > w.last {
			t.Errorf("%d bytes at %d: regions %d to %d", tc.n, tc.off, w.first, w.last)
		}
	}
}
