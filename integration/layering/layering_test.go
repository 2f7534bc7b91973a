// Package layering checks that imports go downwards only, as docs/architecture.md draws them.
package layering

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "graphvol"

// layers lists all packages from the top to the bottom; a package imports only what stands in lines below its own.
// "dir/..." stands for everything below dir. Generated gRPC code stands low because it imports nothing of graphvol.
func layers() [][]string {
	return [][]string{
		{"integration", "integration/..."},
		{"cmd/graphvol", "cmd/graphvol-agent"},
		{"agent/node"},
		{"agent"},
		{"agent/graphmeta", "agent/placement", "agent/preflight", "agent/preflight/pgroles"},
		{"fs"},
		{"fs/browse", "fs/hold"},
		{"fs/cow"},
		{"fs/cow/backing", "fs/cow/epoch"},
		{"remote"},
		{"snapshot"},
		{"snapshot/tree", "snapshot/retain"},
		{"index"},
		{"chunkstore"},
		{"chunkstore/blockcache", "chunkstore/limit"},
		{"chunkstore/target/probe"},
		{"chunkstore/target/dial"},
		{"chunkstore/crypt"},
		{"chunkstore/erasure"},
		{"chunkstore/target/s3"},
		{"chunkstore/target/targettest"},
		{"chunkstore/target"},
		{"agent/cluster"},
		{"agent/clock", "agent/cluster/liveness", "agent/hook", "agent/pki", "agent/preflight/check", "agent/reach", "agent/schedule", "agent/telemetry"},
		{"agent/clock/clocktest"},
		{"internal/command"},
		{"agent/config"},
		{"agent/api", "agent/traceid", "internal/postgres/pgtest", "chunkstore/target/s3/s3test"},
		{"internal/..."},
	}
}

// narrow lists packages that know less than their layer would allow: all that they may import of graphvol.
func narrow() map[string][]string {
	return map[string][]string{
		"agent/cluster":           {"agent/api", "agent/config", "agent/traceid", "internal/..."},
		"agent/config":            {"internal/durable"},
		"agent/clock":             {},
		"agent/cluster/liveness":  {},
		"agent/preflight":         {"agent/clock", "agent/config", "agent/preflight/check", "internal/..."},
		"agent/preflight/check":   {},
		"agent/hook":              {"agent/config", "internal/..."},
		"agent/pki":               {"agent/config", "internal/..."},
		"agent/graphmeta":         {"agent/config", "internal/..."},
		"agent/placement":         {"internal/..."},
		"agent/preflight/pgroles": {"agent/config", "agent/preflight/check", "internal/..."},
		"agent/schedule":          {},
		"agent/telemetry":         {},
		"agent/traceid":           {},
		"fs/browse":               {"snapshot", "snapshot/tree", "index", "internal/..."},
		"fs/hold":                 {"internal/..."},
		"remote":                  {"snapshot", "index", "chunkstore", "chunkstore/...", "internal/..."},
		"snapshot/retain":         {},
		"snapshot/tree":           {"chunkstore", "internal/..."},
		"index":                   {"chunkstore", "internal/..."},
		"chunkstore":              {"chunkstore/target", "internal/..."},
		"chunkstore/crypt":        {"chunkstore/target", "internal/..."},
		"chunkstore/erasure":      {"chunkstore/target", "internal/..."},
		"chunkstore/limit":        {"chunkstore/target", "internal/..."},
		"chunkstore/target":       {"internal/..."},
		"chunkstore/target/probe": {"chunkstore/target"},
		"chunkstore/target/dial":  {"chunkstore/target", "chunkstore/target/s3", "internal/..."},
		"chunkstore/target/s3":    {"chunkstore/target", "internal/..."},
	}
}

// owners lists foreign modules that only some packages may know.
func owners() map[string][]string {
	return map[string][]string{
		"github.com/hanwen/go-fuse":        {"fs", "fs/browse", "fs/hold", "integration/faults"}, // the last for a filesystem that fails
		"go.etcd.io/bbolt":                 {"index"},
		"google.golang.org/grpc":           {"agent", "agent/api", "agent/cluster", "agent/node", "agent/reach", "agent/telemetry", "agent/traceid", "cmd/graphvol"},
		"google.golang.org/protobuf":       {"agent", "agent/api", "agent/cluster", "agent/node", "cmd/graphvol"},
		"go.etcd.io/etcd":                  {"agent/cluster"},
		"go.opentelemetry.io":              {"agent/telemetry", "agent/traceid"},
		"github.com/prometheus":            {"agent/telemetry"},
		"github.com/coreos/go-systemd":     {"agent"},
		"github.com/spf13/cobra":           {"cmd/graphvol"},
		"github.com/goccy/go-yaml":         {"agent/config"},
		"github.com/netresearch/go-cron":   {"agent/schedule", "agent/telemetry"},
		"github.com/klauspost/compress":    {"chunkstore"},
		"github.com/klauspost/reedsolomon": {"chunkstore/erasure"},
		"filippo.io/age":                   {"chunkstore/crypt"},
		"github.com/RoaringBitmap":         {"index", "fs/cow", "fs/cow/epoch"},
		"github.com/schollz/progressbar/":  {"cmd/graphvol"},
		"github.com/minio":                 {"chunkstore/target/s3"},
		"github.com/beevik/ntp":            {"agent/clock"},
		"github.com/dustin/go-humanize":    {"chunkstore/limit", "agent/config", "agent/preflight"},
		"golang.org/x/time":                {"chunkstore/limit"},
		"github.com/jackc/pgx":             {"internal/postgres", "internal/postgres/pgtest"},
	}
}

type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func TestImportsGoDownwards(t *testing.T) {
	for _, p := range list(t) {
		from := local(p.ImportPath)
		rank := rankOf(from)
		if rank < 0 {
			t.Errorf("%s stands in no layer: add it to layers() and to docs/architecture.md", from)
			continue
		}
		for _, imp := range p.Imports {
			checkLocal(t, from, rank, imp)
			checkForeign(t, from, imp)
		}
		for _, imp := range slices.Concat(p.TestImports, p.XTestImports) {
			// A conformance suite, as targettest, stands above the package that its interface is in, and is for all tests.
			if to := local(imp); to != "" && to != from && rankOf(to) < rank && !strings.HasSuffix(to, "test") {
				t.Errorf("tests of %s import %s, which stands above it", from, to)
			}
		}
	}
}

func checkLocal(t *testing.T, from string, rank int, imp string) {
	to := local(imp)
	if to == "" {
		return
	}
	if r := rankOf(to); r <= rank && !(rank == 0 && r == 0) {
		t.Errorf("%s imports %s, which does not stand below it", from, to)
	}
	if allowed, ok := narrow()[from]; ok && !matchAny(allowed, to) {
		t.Errorf("%s may import only %s, not %s", from, strings.Join(allowed, ", "), to)
	}
}

func checkForeign(t *testing.T, from, imp string) {
	for mod, allowed := range owners() {
		if strings.HasPrefix(imp, mod) && !slices.Contains(allowed, from) {
			t.Errorf("%s imports %s, which only %s may", from, imp, strings.Join(allowed, ", "))
		}
	}
}

// local returns the path below the module, or "" for a foreign package.
func local(imp string) string {
	rest, ok := strings.CutPrefix(imp, module+"/")
	if !ok {
		return ""
	}
	return rest
}

func rankOf(p string) int {
	return slices.IndexFunc(layers(), func(l []string) bool { return matchAny(l, p) })
}

func matchAny(patterns []string, p string) bool {
	return slices.ContainsFunc(patterns, func(pat string) bool {
		if dir, ok := strings.CutSuffix(pat, "/..."); ok {
			return p == dir || strings.HasPrefix(p, dir+"/")
		}
		return p == pat
	})
}

func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}
