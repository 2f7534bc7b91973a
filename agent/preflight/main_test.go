package preflight

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"graphvol/agent/config"
	"graphvol/agent/preflight/check"
)

// asUser has the test binary look at the configuration that it names, and print the rows.
const asUser = "PREFLIGHT_TEST_CONFIG"

const nobody = 65534

func TestMain(m *testing.M) {
	if text := os.Getenv(asUser); text != "" {
		c, err := config.Parse([]byte(text))
		if err == nil {
			err = json.NewEncoder(os.Stdout).Encode(new(Checker).Run(context.Background(), c))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// place is a directory that every user can reach.
type place struct {
	*testing.T
	dir string
}

func newPlace(t *testing.T) *place {
	t.Helper()
	dir, err := os.MkdirTemp("", "preflight")
	if err != nil {
		t.Fatal(err)
	}
	p := &place{T: t, dir: dir}
	t.Cleanup(func() { p.must(os.RemoveAll(dir)) })
	p.must(os.Chmod(dir, 0o755))
	return p
}

func (p *place) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func (p *place) path(elem ...string) string {
	return filepath.Join(append([]string{p.dir}, elem...)...)
}

// mkdir makes a directory of root's with just this mode.
func (p *place) mkdir(name string, mode os.FileMode) string {
	p.Helper()
	p.must(os.Mkdir(p.path(name), 0o700))
	p.must(os.Chmod(p.path(name), mode))
	return p.path(name)
}

func (p *place) write(name string, mode os.FileMode) string {
	p.Helper()
	p.must(os.WriteFile(p.path(name), []byte("#!/bin/sh\n"), 0o600))
	p.must(os.Chmod(p.path(name), mode))
	return p.path(name)
}

// mount mounts something for as long as the test lasts.
func (p *place) mount(source, name, fstype string, flags uintptr, data string) string {
	p.Helper()
	at := p.path(name)
	p.must(os.MkdirAll(at, 0o755))
	p.must(unix.Mount(source, at, fstype, flags, data))
	p.Cleanup(func() { p.must(errors.Join(unix.Unmount(at, unix.MNT_DETACH))) })
	return at
}

// run looks at a configuration as a user.
func (p *place) run(uid uint32, text string) []check.Row {
	p.Helper()
	if int(uid) == os.Geteuid() {
		c, err := config.Parse([]byte(text))
		p.must(err)
		return new(Checker).Run(p.Context(), c)
	}
	// Others can't reach the program by its path.
	exe, err := os.Open("/proc/self/exe")
	p.must(err)
	defer exe.Close()
	cmd := exec.CommandContext(p.Context(), "/proc/self/fd/3")
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{exe}
	cmd.Env = append(os.Environ(), asUser+"="+text)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		p.Fatalf("%v: %s", err, &stderr)
	}
	var rows []check.Row
	p.must(json.Unmarshal(out, &rows))
	return rows
}

// of gives the row of a subject.
func of(t *testing.T, rows []check.Row, name, subject string) check.Row {
	t.Helper()
	for _, r := range rows {
		if r.Name == name && r.Subject == subject {
			return r
		}
	}
	t.Fatalf("no row %s %s in %v", name, subject, rows)
	return check.Row{}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts, and runs as other users")
	}
}
