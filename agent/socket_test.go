package agent

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSocketPaths(t *testing.T) {
	for _, name := range []string{"short", strings.Repeat("long/", 40) + "state"} {
		state := filepath.Join(t.TempDir(), name)
		if err := os.MkdirAll(state, 0o700); err != nil {
			t.Fatal(err)
		}
		// Left by a dead agent.
		if err := os.WriteFile(SocketPath(state), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		ln, err := listen(state)
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(SocketPath(state))
		if err != nil || st.Mode().Type() != os.ModeSocket || st.Mode().Perm() != 0o600 {
			t.Fatalf("socket: %v, %v", st, err)
		}
		go func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "hello")
			c.Close()
		}()
		c, err := dialSocket(context.Background(), state)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); string(b) != "hello" || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
		c.Close()
		ln.Close()
		if fds := openFDs(t, state); len(fds) > 0 {
			t.Errorf("left open: %v", fds)
		}
	}
}

// openFDs lists this process's descriptors below dir.
func openFDs(t *testing.T, dir string) (left []string) {
	t.Helper()
	ents, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	for _, e := range ents {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, dir) {
			left = append(left, to)
		}
	}
	return left
}
