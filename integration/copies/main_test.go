// Package copies tests copies of a store elsewhere as an administrator uses them: with the built program, on real mounts, in directories and on a real S3 server.
package copies

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"graphvol/chunkstore/target/s3/s3test"
	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// kinds are the places that copies are tested on.
type kind struct {
	name    string
	encrypt bool
	url     func(t *testing.T) string
}

func kinds() []kind {
	dir := func(t *testing.T) string { return "dir:" + filepath.Join(t.TempDir(), "copy") }
	return []kind{
		{"directory", false, dir},
		{"encrypted directory", true, dir},
		{"bucket", true, func(t *testing.T) string { return s3test.Start(t).URL("graph") }},
	}
}

func (k kind) args(url string) []string {
	args := []string{"--target", url}
	if k.encrypt && strings.HasPrefix(url, "dir:") {
		args = append(args, "--encrypt", "yes")
	}
	return args
}

// user is a mounted volume with copies, and what its snapshots hold.
type user struct {
	*volume.Volume
	t    *testing.T
	rng  *rand.Rand
	n    int
	want map[string]map[string]string // by snapshot: content by path
}

func newUser(t *testing.T, o volume.Options) *user {
	t.Helper()
	return &user{Volume: rig.Mounted(t, o), t: t, rng: rand.New(rand.NewPCG(rand.Uint64(), 0)), want: map[string]map[string]string{}}
}

func (u *user) must(err error) {
	u.t.Helper()
	if err != nil {
		u.t.Fatal(err)
	}
}

func (u *user) run(args ...string) string {
	u.t.Helper()
	out, err := u.Run(u.t.Context(), args...)
	u.must(err)
	return out
}

// refused runs a command that must fail and say all the words in one line.
func (u *user) refused(words []string, args ...string) {
	u.t.Helper()
	_, err := u.Run(u.t.Context(), args...)
	var exit *volume.ExitError
	if !errors.As(err, &exit) || exit.Code != 1 {
		u.t.Errorf("%q: %v, want exit code 1", args, err)
		return
	}
	text := strings.TrimSpace(exit.Stderr)
	if strings.Contains(text, "\n") || strings.Contains(text, "internal error") || strings.Contains(text, "rpc error") {
		u.t.Errorf("%q: not one clear line: %s", args, text)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			u.t.Errorf("%q: no %q in: %s", args, w, text)
		}
	}
}

// change writes files anew and in part, and removes some.
func (u *user) change() {
	u.t.Helper()
	u.n++
	dir := filepath.Join(u.Mount, fmt.Sprintf("dir%d", u.n%3))
	u.must(os.MkdirAll(dir, 0o755))
	rig.WriteFile(u.t, filepath.Join(dir, fmt.Sprint("file", u.n)), 1+u.rng.IntN(3<<20))
	f, err := os.OpenFile(filepath.Join(u.Mount, "data"), os.O_RDWR|os.O_CREATE, 0o644)
	u.must(err)
	defer f.Close()
	for range 5 {
		_, err := f.WriteAt(rig.RandomBytes(1+u.rng.IntN(100_000)), u.rng.Int64N(4<<20))
		u.must(err)
	}
	if u.n%4 == 0 {
		u.must(os.RemoveAll(filepath.Join(u.Mount, fmt.Sprintf("dir%d", u.rng.IntN(3)))))
	}
}

func (u *user) snapshot(name string) volume.Snapshot {
	u.t.Helper()
	u.change()
	s, err := u.Snapshot(u.t.Context(), name)
	u.must(err)
	u.want[name] = content(u.t, u.Backing)
	return s
}

// content reads all files below a directory.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		p, err := os.ReadFile(path)
		rel, rerr := filepath.Rel(dir, path)
		all[rel] = string(p)
		return errors.Join(err, rerr)
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func same(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for path, p := range want {
		if q, ok := got[path]; !ok || q != p {
			t.Errorf("%s: %s is there: %v, and has %d bytes, want %d", what, path, ok, len(q), len(p))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d files, want %d", what, len(got), len(want))
	}
}

// restored restores all snapshots of a state directory and compares them.
func (u *user) restored(state string) {
	u.t.Helper()
	for name, want := range u.want {
		dest := u.t.TempDir()
		u.run("restore", state, name, dest)
		same(u.t, name, content(u.t, dest), want)
	}
}

// remoteStatus is a row of status --json.
type remoteStatus struct {
	Name, Phase, Error  string
	Snapshots, Sequence int64
	Encrypted           bool
	URLs, Former        []string
	Erasure             string
	Scrubbed            *time.Time
	Problems            int
}

func (u *user) remotes(volume string) []remoteStatus {
	u.t.Helper()
	var doc struct {
		Volumes []struct{ Remotes []remoteStatus }
	}
	u.must(json.Unmarshal([]byte(u.run("status", volume, "--json")), &doc))
	return doc.Volumes[0].Remotes
}

// upToDate waits until the copy has so many snapshots and nothing is wrong.
func (u *user) upToDate(snapshots int) {
	u.t.Helper()
	var last []remoteStatus
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		last = u.remotes(u.Mount)
		if len(last) == 1 && last[0].Phase == "idle" && last[0].Snapshots == int64(snapshots) {
			return
		}
	}
	u.t.Fatalf("the copy isn't up to date: %+v, want %d snapshots", last, snapshots)
}
