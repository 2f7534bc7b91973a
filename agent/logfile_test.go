package agent

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLogRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log", agentLogName)
	var fallback bytes.Buffer
	l, err := openLog(path, 100, 2, &fallback)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		fmt.Fprintf(l, "line %02d of the log\n", i) // 19 bytes: 5 a file
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var all string
	for _, name := range []string{path + ".2", path + ".1", path} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 100 || !strings.HasSuffix(string(b), "\n") {
			t.Errorf("%s has %d bytes: %q", name, len(b), b)
		}
		all += string(b)
	}
	if !strings.HasSuffix(all, "line 49 of the log\n") || strings.Count(all, "\n") != 15 {
		t.Errorf("kept %q", all)
	}
	if _, err := os.Stat(path + ".3"); !os.IsNotExist(err) {
		t.Errorf("a third old file: %v", err)
	}
	fmt.Fprintln(l, "after close")
	if fallback.String() != "after close\n" {
		t.Errorf("fallback got %q", fallback.String())
	}
}

func TestLogGoesOnAfterReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), agentLogName)
	for range 3 {
		l, err := openLog(path, 100, 2, os.Stderr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(l, strings.Repeat("x", 60))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{path, path + ".1", path + ".2"} {
		if st, err := os.Stat(name); err != nil || st.Size() != 61 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
}
