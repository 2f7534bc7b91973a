package input

import (
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

var (
	seedFlag = flag.Uint64("input.seed", 0, "seed of random tests; 0 chooses one and prints it")
	runs     = flag.Int("input.runs", 1, "how often random tests change a volume behind its back, in each variant")
	files    = flag.Int("input.files", 5_000, "files of the test of many files; 1000000 takes some minutes")
	links    = flag.Int("input.links", 2_000, "names of the file with many; ext4 allows 65000")
	clock    = flag.Bool("input.clock", false, "set the machine's clock, to and fro")
	depth    = flag.Int("input.depth", 500, "directories in one another, of 200 bytes each")
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

func seed(t *testing.T) uint64 {
	t.Helper()
	n := *seedFlag
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: go test ./integration/input -run '^%s$' -input.seed %d", n, t.Name(), n)
	return n
}

// refused runs a command that must fail and say all the words in one line.
func refused(t *testing.T, v *volume.Volume, words []string, args ...string) {
	t.Helper()
	_, err := v.Run(t.Context(), args...)
	checkRefused(t, err, words...)
}

func checkRefused(t *testing.T, err error, words ...string) {
	t.Helper()
	var exit *volume.ExitError
	if !errors.As(err, &exit) || exit.Code != 1 {
		t.Errorf("%v, want exit code 1", err)
		return
	}
	text := strings.TrimSpace(exit.Stderr)
	if text == "" || strings.Contains(text, "\n") || strings.Contains(text, "panic") {
		t.Errorf("%q: want one line on standard error, got %q", exit.Args, exit.Stderr)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q: standard error lacks %q: %s", exit.Args, w, text)
		}
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
