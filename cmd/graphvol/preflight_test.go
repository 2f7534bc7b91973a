package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"graphvol/agent/config"
	"graphvol/agent/preflight/check"
)

func TestPreflight(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "graphvol.yaml")
	backing, mount, missing := filepath.Join(dir, "b"), filepath.Join(dir, "m"), filepath.Join(dir, "no such")
	for _, d := range []string{backing, mount} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write := func(mount string) {
		text := fmt.Sprintf("node: {state: %q}\npreflight: {free-space: 1KiB}\nvolumes:\n  - {backing: %q, mount: %q, private: true}\n", dir, backing, mount)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// What the machine itself may lack is no matter of this test.
	lacks := func(line string) bool { return strings.HasPrefix(line, "fuse ") || strings.HasPrefix(line, "memory ") }

	write(missing)
	a, out, errOut := newApp(t, &fakeVolume{})
	if code := a.run(t.Context(), []string{"preflight", "--config", path}); code != exitFailed {
		t.Errorf("exit code %d, %s", code, out)
	}
	var lines []string
	for line := range strings.Lines(out.String()) {
		if !lacks(line) {
			lines = append(lines, line)
		}
	}
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "path "+missing+": the mount point of the volume ") || !strings.Contains(lines[0], "; fix: ") || !strings.HasSuffix(lines[0], " '"+missing+"'\n") {
		t.Errorf("printed %q", lines)
	}
	if got := errOut.String(); !strings.Contains(got, " checks failed\n") || strings.Count(got, "\n") != 1 {
		t.Errorf("stderr %q", got)
	}

	out.Reset()
	if code := a.run(t.Context(), []string{"preflight", "--config", path, "--json"}); code != exitFailed {
		t.Errorf("exit code %d, %s", code, out)
	}
	var doc preflightDoc
	if err := json.Unmarshal(out.Bytes(), &doc); err != nil || doc.OK || len(doc.Checks) < 6 || len(check.Failed(doc.Checks)) == len(doc.Checks) {
		t.Errorf("%v, %s", err, out)
	}

	// What the agent has kept of the cluster's configuration is in force, not the file's volumes.
	write(mount)
	kept := config.Central{Revision: 7, Text: fmt.Sprintf("preflight: {free-space: 1KiB}\nvolumes:\n  - {backing: %q, mount: %q, private: true}\n", backing, missing)}
	if err := kept.Keep(dir); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if code := a.run(t.Context(), []string{"preflight", "--config", path}); code != exitFailed || !strings.Contains(out.String(), "path "+missing) {
		t.Errorf("exit code %d, %s", code, out)
	}
	if err := (config.Central{}).Keep(dir); err != nil {
		t.Fatal(err)
	}

	out.Reset()
	code := a.run(t.Context(), []string{"preflight", "--config", path})
	if got := out.String(); code == exitDone && !strings.HasSuffix(got, " checks, all is right\n") || code != exitDone && !lacks(got) {
		t.Errorf("exit code %d, %s", code, got)
	}
	errOut.Reset()
	if code := a.run(t.Context(), []string{"preflight", "--config", missing}); code != exitFailed || !strings.Contains(errOut.String(), missing) {
		t.Errorf("exit code %d, %s", code, errOut)
	}
	if code := a.run(t.Context(), []string{"preflight", "x"}); code != exitUsage {
		t.Errorf("exit code %d", code)
	}
}
