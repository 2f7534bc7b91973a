package input

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// hardNames are names with every byte that a name can have, and as long as it can be.
func hardNames() (names []string) {
	for b := 1; b < 256; b++ {
		if c := string([]byte{byte(b)}); c != "/" && c != "." {
			names = append(names, c, "a"+c+"b")
		}
	}
	for _, c := range []string{"x", "ü", "\xff", "\n", "字"} {
		long := strings.Repeat(c, 255/len(c))
		names = append(names, long, long[:len(long)-1]+"\\")
	}
	return append(names, "...", "..a", " ", "a ", "-rf", "--json", "*", "~", "$(x)", "%s%n", "a\\nb", `"a"`, "a -> b", ".graphvol", ".snapshots.", "CON", "\u202eabc")
}

// paths gives the paths that a command's JSON holds in a list of objects, as they are on the disk.
func paths(t *testing.T, out, list string) []string {
	t.Helper()
	var doc map[string]json.RawMessage
	var rows []struct {
		Path       string
		PathBase64 string `json:"path_base64"`
	}
	must(t, json.Unmarshal([]byte(out), &doc), json.Unmarshal(doc[list], &rows))
	var all []string
	for _, r := range rows {
		if r.PathBase64 != "" {
			p, err := base64.StdEncoding.DecodeString(r.PathBase64)
			must(t, err)
			r.Path = string(p)
		}
		if r.Path != "." {
			all = append(all, r.Path)
		}
	}
	slices.Sort(all)
	return all
}

// same compares a snapshot, or what was restored, with a description of the volume.
func same(t *testing.T, dir string, want map[string]entry) {
	t.Helper()
	got, err := describe(dir)
	if err = errors.Join(err, compare(got, want)); err != nil {
		t.Errorf("%s: %v", dir, err)
	}
}

// TestHardNames takes names through all that deals with names.
func TestHardNames(t *testing.T) {
	t.Parallel()
	v := rig.Mounted(t, volume.Options{})
	names := hardNames()
	slices.Sort(names)
	names = slices.Compact(names)
	for _, n := range names {
		must(t, os.WriteFile(filepath.Join(v.Mount, n), []byte(n), 0o644))
	}
	s, err := v.Snapshot(t.Context(), "s")
	if err != nil || s.Files != int64(len(names)) {
		t.Fatalf("%d files of %d, %v", s.Files, len(names), err)
	}
	was, err := describe(v.Backing)
	must(t, err)
	if len(was) != len(names)+1 {
		t.Fatalf("%d entries of %d names", len(was), len(names))
	}
	for _, n := range names {
		must(t, os.WriteFile(filepath.Join(v.Mount, n), []byte(n+"!"), 0o644))
	}
	_, err = v.Snapshot(t.Context(), "t")
	must(t, err)
	is, err := describe(v.Backing)
	must(t, err)
	same(t, v.SnapshotDir("s"), was)
	same(t, v.SnapshotDir("t"), is)
	out, err := v.Run(t.Context(), "diff", v.Mount, "s", "t", "--json")
	must(t, err)
	if got := paths(t, out, "changes"); !slices.Equal(got, names) {
		t.Errorf("diff has %d paths of %d: %q", len(got), len(names), got)
	}
	listed(t, v, names)
	for _, n := range names {
		must(t, os.Remove(filepath.Join(v.Mount, n)))
	}
	out, err = v.Run(t.Context(), "dirty", v.Mount, "--json")
	must(t, err)
	if got := paths(t, out, "files"); !slices.Equal(got, names) {
		t.Errorf("dirty has %d paths of %d that were removed: %q", len(got), len(names), got)
	}
	restoreNames(t, v, names, was)
}

// listed: every line of what commands print for people is one file.
func listed(t *testing.T, v *volume.Volume, names []string) {
	t.Helper()
	out, err := v.Run(t.Context(), "diff", v.Mount, "s", "t")
	must(t, err)
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	if slices.Sort(lines); len(lines) != len(names) || len(slices.Compact(lines)) != len(names) {
		t.Errorf("diff prints %d lines for %d files", len(lines), len(names))
	}
}

func restoreNames(t *testing.T, v *volume.Volume, names []string, was map[string]entry) {
	t.Helper()
	dest := filepath.Join(v.Dir, "dest")
	_, err := v.Run(t.Context(), "restore", v.Mount, "s", dest)
	must(t, err)
	for _, n := range names {
		rig.SameFile(t, filepath.Join(dest, n), []byte(n))
	}
	one := filepath.Join(v.Dir, "one")
	_, err = v.Run(t.Context(), append([]string{"restore", v.Mount, "s", one, "--"}, names...)...)
	must(t, err)
	list, err := os.ReadDir(one)
	if err != nil || len(list) != len(names) {
		t.Errorf("%d of %d names restored one by one, %v", len(list), len(names), err)
	}
	_, err = v.Run(t.Context(), "restore", v.Mount, "s", v.Mount)
	must(t, err)
	for name := range maps.Keys(was) {
		if _, err := os.Lstat(filepath.Join(v.Mount, name)); err != nil {
			t.Error("in place:", err)
		}
	}
	_, err = v.Run(t.Context(), "delete", v.Mount, "s")
	must(t, err)
	_, err = v.Run(t.Context(), "verify", v.Mount, "--read-data")
	must(t, err)
}

// TestNamesTooLong: names and targets at their limits, and one byte longer.
func TestNamesTooLong(t *testing.T) {
	t.Parallel()
	v := rig.Mounted(t, volume.Options{})
	twins(t, v, []twin{
		{"256 bytes", func(d string) (int, error) {
			return 0, os.WriteFile(filepath.Join(d, strings.Repeat("n", 256)), nil, 0o600)
		}},
		{"255 bytes", func(d string) (int, error) {
			return 0, os.WriteFile(filepath.Join(d, strings.Repeat("n", 255)), nil, 0o600)
		}},
		{"a target of 4095 bytes", func(d string) (int, error) { return 0, os.Symlink(strings.Repeat("t", 4095), filepath.Join(d, "l")) }},
		{"a target of 4096 bytes", func(d string) (int, error) { return 0, os.Symlink(strings.Repeat("t", 4096), filepath.Join(d, "m")) }},
		{"an empty target", func(d string) (int, error) { return 0, os.Symlink("", filepath.Join(d, "e")) }},
		{"read the long target", func(d string) (int, error) {
			to, err := os.Readlink(filepath.Join(d, "l"))
			return len(to), err
		}},
	})
	_, err := v.Snapshot(t.Context(), "s")
	must(t, err)
	want, err := describe(v.Backing)
	must(t, err)
	same(t, v.SnapshotDir("s"), want)
}

// twin is something that must do the same on the mount as on the backing's filesystem.
type twin struct {
	what string
	do   func(dir string) (int, error)
}

// twins runs all on the mount and on a directory beside the backing.
func twins(t *testing.T, v *volume.Volume, list []twin) {
	t.Helper()
	plain := v.Backing + ".plain"
	mkdirs(t, plain)
	for _, w := range list {
		n, err := w.do(plain)
		m, again := w.do(v.Mount)
		if n != m || errno(err) != errno(again) {
			t.Errorf("%s: %d, %v on the mount; %d, %v on the backing's filesystem", w.what, m, again, n, err)
		}
	}
}

func errno(err error) (e unix.Errno) {
	if err != nil && !errors.As(err, &e) {
		panic(fmt.Sprintf("not of the kernel: %v", err))
	}
	return e
}

// TestDeepTree: directories in one another, whose path is far longer than a path may be; see -input.depth.
func TestDeepTree(t *testing.T) {
	t.Parallel()
	v := rig.Mounted(t, volume.Options{})
	depth := *depth
	name := strings.Repeat("d", 200)
	fd, err := unix.Open(v.Mount, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	for range depth {
		must(t, unix.Mkdirat(fd, name, 0o755))
		fd = down(t, fd, name)
	}
	put := func(text string) {
		f, err := unix.Openat(fd, "file", unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o644)
		must(t, err)
		_, err = unix.Write(f, []byte(text))
		must(t, err, unix.Close(f))
	}
	put("first")
	_, err = v.Snapshot(t.Context(), "s")
	must(t, err)
	put("second")
	_, err = v.Snapshot(t.Context(), "t")
	must(t, err)
	put("third")
	path := strings.Repeat(name+"/", depth) + "file"
	for list, args := range map[string][]string{"files": {"dirty", v.Mount, "--json"}, "changes": {"diff", v.Mount, "s", "t", "--json"}} {
		out, err := v.Run(t.Context(), args...)
		must(t, err)
		if got := paths(t, out, list); !slices.Equal(got, []string{path}) {
			t.Errorf("%v: %d paths", args[0], len(got))
		}
	}
	must(t, unix.Close(fd), v.Umount(t.Context()), v.Start(t.Context()))
	_, err = v.Snapshot(t.Context(), "u") // after a scan
	must(t, err)
	dest := filepath.Join(v.Dir, "dest")
	_, err = v.Run(t.Context(), "restore", v.Mount, "s", dest)
	must(t, err)
	_, err = v.Run(t.Context(), "restore", v.Mount, "t", v.Mount)
	must(t, err)
	for dir, want := range map[string]string{
		v.SnapshotDir("s"): "first", v.SnapshotDir("t"): "second", v.SnapshotDir("u"): "third", dest: "first", v.Mount: "second",
	} {
		if got := readDeep(t, dir, name, depth); got != want {
			t.Errorf("at the bottom of %s: %q, want %q", dir, got, want)
		}
	}
	_, err = v.Run(t.Context(), "verify", v.Mount, "--read-data")
	must(t, err, os.RemoveAll(filepath.Join(v.Mount, name)))
	_, err = v.Snapshot(t.Context(), "empty")
	must(t, err)
}

// down goes into a directory.
func down(t *testing.T, fd int, name string) int {
	t.Helper()
	sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err, unix.Close(fd))
	return sub
}

func readDeep(t *testing.T, dir, name string, depth int) string {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	for range depth {
		fd = down(t, fd, name)
	}
	defer unix.Close(fd)
	f, err := unix.Openat(fd, "file", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(f)
	buf := make([]byte, 100)
	n, err := unix.Read(f, buf)
	must(t, err)
	return string(buf[:n])
}
