package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"graphvol/fs/hold"
)

// places is a directory with two volumes' files, and a table of mounts that never were.
type places struct {
	root   string
	mounts []hold.Mount
}

func newPlaces(t *testing.T) *places {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"graph/sub", "graph.graphvol", "mnt/inside", "elsewhere", "states/else", "mnt2", "over", "over.graphvol", "plain"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p := &places{root: root}
	p.facts(t, "graph.graphvol", "graph")
	p.facts(t, "states/else", "elsewhere")
	p.facts(t, "over.graphvol", "over")
	for _, m := range [][2]string{{"mnt", "graph.graphvol"}, {"mnt2", "states/else"}, {"over", "over.graphvol"}} {
		p.mounts = append(p.mounts, hold.Mount{Point: p.path(m[0]), FSType: hold.FSType, Source: p.path(m[1])})
	}
	if err := os.Symlink("mnt", p.path("link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.path("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *places) path(name string) string { return filepath.Join(p.root, name) }

func (p *places) facts(t *testing.T, state, backing string) {
	t.Helper()
	if err := WriteFacts(p.path(state), Facts{Backing: p.path(backing)}); err != nil {
		t.Fatal(err)
	}
}

func TestResolve(t *testing.T) {
	p := newPlaces(t)
	for _, c := range []struct{ volume, state, mount string }{
		{"mnt", "graph.graphvol", "mnt"},
		{"mnt/", "graph.graphvol", "mnt"},
		{"link", "graph.graphvol", "mnt"},
		{"graph", "graph.graphvol", "mnt"},
		{"graph/sub/..", "graph.graphvol", "mnt"},
		{"graph.graphvol", "graph.graphvol", "mnt"},
		{"elsewhere", "states/else", "mnt2"},
		{"states/else", "states/else", "mnt2"},
		{"mnt2", "states/else", "mnt2"},
		{"over", "over.graphvol", "over"},
		{"over.graphvol", "over.graphvol", "over"},
	} {
		got, err := resolve(p.root+"/"+c.volume, p.mounts)
		if err != nil {
			t.Errorf("%s: %v", c.volume, err)
			continue
		}
		if got.State != p.path(c.state) || got.Mount.Point != p.path(c.mount) {
			t.Errorf("%s: state %s, mount %s", c.volume, got.State, got.Mount.Point)
		}
	}
}

func TestResolveRelative(t *testing.T) {
	p := newPlaces(t)
	t.Chdir(p.path("graph"))
	for _, volume := range []string{".", "../mnt", "../graph.graphvol", "../link"} {
		if got, err := resolve(volume, p.mounts); err != nil || got.State != p.path("graph.graphvol") {
			t.Errorf("%s: %v, %v", volume, got, err)
		}
	}
}

func TestResolveUnmounted(t *testing.T) {
	p := newPlaces(t)
	for _, volume := range []string{"graph", "graph.graphvol", "over"} {
		got, err := resolve(p.path(volume), nil)
		if err != nil || got.Mounted() {
			t.Errorf("%s: %v, %v", volume, got, err)
		}
	}
	if err := os.RemoveAll(p.path("graph")); err != nil {
		t.Fatal(err)
	}
	if got, err := resolve(p.path("graph"), nil); err != nil || got.State != p.path("graph.graphvol") {
		t.Errorf("a backing that is gone: %v, %v", got, err)
	}
}

func TestResolveErrors(t *testing.T) {
	p := newPlaces(t)
	for _, c := range []struct{ volume, want string }{
		{"missing", "does not exist"},
		{"missing/deeper", "does not exist"},
		{"file", "is not a directory"},
		{"plain", "mount it first (graphvol mount " + p.path("plain") + " MOUNT)"},
		{"mnt/inside", "lies inside the volume mounted at " + p.path("mnt")},
	} {
		_, err := resolve(p.path(c.volume), p.mounts)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", c.volume, err, c.want)
		}
		if !errors.Is(err, ErrNoVolume) {
			t.Errorf("%s: %v is no ErrNoVolume", c.volume, err)
		}
	}
}

func TestFactsOfNewerVersion(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, factsName), []byte(`{"format_version": 99}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFacts(dir); !errors.Is(err, ErrNewerFormat) || !strings.Contains(err.Error(), "format 99") {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, factsName), []byte(`{`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFacts(dir); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("got %v", err)
	}
}

func TestCanonicalRefusesLongPaths(t *testing.T) {
	dir := t.TempDir()
	if got, err := Canonical(dir + strings.Repeat("/d", 1500)); err != nil || !strings.HasPrefix(got, dir+"/d/d") {
		t.Errorf("%.100s, %v", got, err)
	}
	if _, err := Canonical(dir + strings.Repeat("/d", 500_000)); !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Errorf("%.100v", err)
	}
}
