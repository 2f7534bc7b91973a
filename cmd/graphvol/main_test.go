package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"graphvol/agent"
	"graphvol/agent/api"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestMain makes the test binary the program itself when a test has started it as that: mount runs hold, hold runs serve.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{"hold", "serve"}, os.Args[1]) || os.Getenv("GRAPHVOL_TEST_MAIN") != "" {
		main()
	}
	os.Exit(m.Run())
}

// fakeVolume is a service with fixed answers.
type fakeVolume struct {
	api.UnimplementedVolumeServer
	fail error // what every call answers, if set
}

func fakeSnapshot() *api.SnapshotInfo {
	return &api.SnapshotInfo{
		Id: "01k9v0000000000000000000aa", Name: "monday", Kind: "incremental", Parent: "01k9u0000000000000000000aa", State: "complete",
		Created: timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)),
		Pause:   durationpb.New(1234 * time.Microsecond), Seal: durationpb.New(250 * time.Millisecond),
		Files: 3, Bytes: 3 << 20, DirtyBytes: 8192, StoredBytes: 4321, ChecksumSha256: strings.Repeat("ab", 32),
	}
}

func (f *fakeVolume) Snapshot(req *api.SnapshotRequest, s api.Volume_SnapshotServer) error {
	if f.fail != nil {
		return f.fail
	}
	s.Send(&api.SnapshotEvent{Stage: api.SnapshotEvent_STAGE_FLUSHING})
	pending := fakeSnapshot()
	pending.State, pending.Seal, pending.ChecksumSha256 = "pending", nil, ""
	if req.GetName() != "" {
		pending.Name = req.GetName()
	}
	s.Send(&api.SnapshotEvent{Stage: api.SnapshotEvent_STAGE_TAKEN, Snapshot: pending})
	if req.GetNoWait() {
		return nil
	}
	s.Send(&api.SnapshotEvent{Stage: api.SnapshotEvent_STAGE_SEALING, Snapshot: pending, Progress: &api.Progress{DoneBytes: 1}})
	return s.Send(&api.SnapshotEvent{Stage: api.SnapshotEvent_STAGE_COMPLETE, Snapshot: fakeSnapshot()})
}

func (f *fakeVolume) ListSnapshots(context.Context, *api.ListSnapshotsRequest) (*api.ListSnapshotsResponse, error) {
	failed := &api.SnapshotInfo{Id: "x", Name: "tuesday", State: "failed", Error: "the disk was full", Created: fakeSnapshot().Created}
	return &api.ListSnapshotsResponse{Snapshots: []*api.SnapshotInfo{fakeSnapshot(), failed}}, f.fail
}

func (f *fakeVolume) Dirty(req *api.DirtyRequest, s api.Volume_DirtyServer) error {
	file := &api.DirtyFile{Path: []byte("nodes.db"), DirtyBytes: 8192}
	if req.GetRanges() {
		file.Ranges = []*api.Range{{Offset: 4096, Length: 8192}}
	}
	s.Send(file)
	s.Send(&api.DirtyFile{Path: []byte("new\nline \xff")})
	s.Send(&api.DirtyFile{Path: []byte("wal/1"), Removed: true})
	return f.fail
}

func (f *fakeVolume) Diff(req *api.DiffRequest, s api.Volume_DiffServer) error {
	s.Send(&api.Change{Path: []byte("nodes.db"), Kind: "modified", ChangedBytes: 4096, Content: true, Ranges: []*api.Range{{Offset: 0, Length: 4096}}})
	s.Send(&api.Change{Path: []byte("new"), OldPath: []byte("old"), Kind: "renamed"})
	return f.fail
}

func (f *fakeVolume) Restore(req *api.RestoreRequest, s api.Volume_RestoreServer) error {
	if !filepath.IsAbs(string(req.GetDestination())) {
		return status.Error(codes.InvalidArgument, "not absolute")
	}
	s.Send(&api.RestoreEvent{Result: &api.RestoreResult{Files: 2, Bytes: 10 << 20, WrittenBytes: 4096, Removed: 1, Snapshot: fakeSnapshot()}})
	return f.fail
}

func (f *fakeVolume) Delete(context.Context, *api.DeleteRequest) (*api.DeleteResponse, error) {
	return &api.DeleteResponse{Deleted: []*api.SnapshotInfo{fakeSnapshot()}}, f.fail
}

func (f *fakeVolume) Prune(_ *api.PruneRequest, s api.Volume_PruneServer) error {
	s.Send(&api.PruneEvent{Result: &api.PruneResult{ChunksRemoved: 7, PacksRemoved: 2, PacksRewritten: 1, FreedBytes: 5 << 20, StoreBytes: 1 << 30}})
	return f.fail
}

func (f *fakeVolume) Verify(req *api.VerifyRequest, s api.Volume_VerifyServer) error {
	problems := int64(0)
	if req.GetReadData() {
		problems = 1
		s.Send(&api.VerifyEvent{Problem: &api.VerifyProblem{Snapshot: "monday", Path: []byte("nodes.db"), Message: "chunk ab is damaged"}})
	}
	s.Send(&api.VerifyEvent{Result: &api.VerifyResult{Snapshots: 1, Chunks: 9, Bytes: 12345, Problems: problems}})
	return f.fail
}

func (f *fakeVolume) Status(context.Context, *api.StatusRequest) (*api.VolumeStatus, error) {
	return &api.VolumeStatus{
		Mount: "/mnt/graph", Backing: "/srv/graph", State: "/srv/graph.graphvol", ServerPid: 12, HolderPid: 11, Epoch: 4, DirtyBytes: 8192,
		Snapshots: 2, StoreBytes: 1 << 20, Cache: "writeback", Version: "v0.0.0-test",
		Server: &api.ServerProcess{Goroutines: 40, OpenFiles: 60, MaxOpenFiles: 1024, ResidentBytes: 90 << 20, HeapBytes: 20 << 20},
	}, f.fail
}

// newApp gives an app that talks to the fake.
func newApp(t *testing.T, f *fakeVolume) (a *app, out, errOut *bytes.Buffer) {
	t.Helper()
	ln := bufconn.Listen(1 << 16)
	srv := grpc.NewServer()
	api.RegisterVolumeServer(srv, f)
	go srv.Serve(ln)
	t.Cleanup(srv.Stop)
	out, errOut = new(bytes.Buffer), new(bytes.Buffer)
	a = &app{out: out, err: errOut, version: "v0.0.0-test"}
	a.connect = func(context.Context, string) (*agent.Client, error) {
		cc, err := grpc.NewClient("passthrough:///fake", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return ln.DialContext(ctx) }))
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { cc.Close() })
		return &agent.Client{VolumeClient: api.NewVolumeClient(cc)}, nil
	}
	return a, out, errOut
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew); got:\n%s", path, got)
	}
}

func TestHelp(t *testing.T) {
	a, out, _ := newApp(t, &fakeVolume{})
	var b strings.Builder
	for _, cmd := range append([]string{""}, commandNames(a)...) {
		out.Reset()
		if code := a.run(t.Context(), append(strings.Fields(cmd), "--help")); code != exitDone {
			t.Errorf("%s --help: exit code %d", cmd, code)
		}
		b.WriteString("$ graphvol " + strings.TrimSpace(cmd+" --help") + "\n" + out.String() + "\n")
	}
	golden(t, "help.txt", b.String())
}

func commandNames(a *app) (names []string) {
	for _, c := range a.root().Commands() {
		names = append(names, c.Name())
	}
	return names
}

func TestEveryCommandHasHelpWithExamples(t *testing.T) {
	a, _, _ := newApp(t, &fakeVolume{})
	for _, c := range a.root().Commands() {
		if c.Long == "" || !c.Hidden && c.Example == "" && c.Name() != "completion" {
			t.Errorf("%s: long help %q, example %q", c.Name(), c.Long, c.Example)
		}
	}
}

func TestText(t *testing.T) {
	var b strings.Builder
	for _, line := range []string{
		"snapshot v", "snapshot v --no-wait --name x", "dirty v --ranges", "diff v a b --ranges", "delete v monday", "prune v", "prune v --dry-run",
		"verify v", "verify v --read-data", "status v", "version",
	} {
		a, out, errOut := newApp(t, &fakeVolume{})
		code := a.run(t.Context(), strings.Fields(line))
		b.WriteString("$ graphvol " + line + "\n" + out.String())
		if s := errOut.String(); s != "" {
			b.WriteString("stderr: " + s)
		}
		if code != 0 {
			b.WriteString("exit code " + string(rune('0'+code)) + "\n")
		}
	}
	golden(t, "text.txt", strings.ReplaceAll(b.String(), runtime.Version(), "go0.0"))
}

// TestJSONShapes holds the names that scripts rely on.
func TestJSONShapes(t *testing.T) {
	row := []string{
		"bytes", "checksum_sha256", "created", "dirty_bytes", "files", "id", "kind", "name", "parent", "pause_ms", "seal_ms", "state", "stored_bytes",
	}
	for _, c := range []struct {
		line string
		path string // to the object that has the keys: names and [0], from the top
		want []string
	}{
		{"snapshot v --json", "", row},
		{"snapshot v --no-wait --json", "", row},
		{"snapshots v --json", "snapshots", row},
		{"dirty v --json", "", []string{"dirty_bytes", "files"}},
		{"dirty v --json", "files", []string{"dirty_bytes", "path"}},
		{"dirty v --ranges --json", "files", []string{"dirty_bytes", "path", "ranges"}},
		{"diff v a b --json", "changes", []string{"attributes", "changed_bytes", "content", "kind", "path", "ranges"}},
		{"restore v a /d --json", "", []string{"bytes", "destination", "dry_run", "duration_ms", "files", "name", "removed", "snapshot", "written_bytes"}},
		{"delete v a --json", "deleted", row},
		{"prune v --json", "", []string{"chunks_removed", "dry_run", "freed_bytes", "packs_removed", "packs_rewritten", "store_bytes", "unused_bytes"}},
		{"verify v --json", "", []string{"bytes", "chunks", "problems", "read_data", "snapshots"}},
		{"status v --json", "volumes", []string{
			"backing", "cache", "dirty_bytes", "epoch", "holder_pid", "mount", "pending", "scanning", "server", "server_pid", "snapshots", "state", "store_bytes", "version",
		}},
		{"version --json", "", []string{"formats", "go", "version"}},
	} {
		a, out, errOut := newApp(t, &fakeVolume{})
		if code := a.run(t.Context(), strings.Fields(c.line)); code != exitDone {
			t.Errorf("%s: exit code %d, %s", c.line, code, errOut)
			continue
		}
		var top map[string]any
		if err := json.Unmarshal(out.Bytes(), &top); err != nil {
			t.Errorf("%s: %v in %s", c.line, err, out)
			continue
		}
		if c.path != "" {
			top = top[c.path].([]any)[0].(map[string]any)
		}
		var keys []string
		for k := range top {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		if !slices.Equal(keys, c.want) {
			t.Errorf("%s: %s has %v, want %v", c.line, c.path, keys, c.want)
		}
	}
}

func TestJSONOfNothing(t *testing.T) {
	var b bytes.Buffer
	if err := newJSONList(&b, "files").end("dirty_bytes", int64(0)); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); got != "{\n  \"files\": [],\n  \"dirty_bytes\": 0\n}\n" {
		t.Errorf("got %s", got)
	}
}

func TestExitCodes(t *testing.T) {
	missing := status.Error(codes.NotFound, "no snapshot is named \"x\";\nnear: monday")
	for _, c := range []struct {
		line string
		fail error
		code int
		want string // on stderr
	}{
		{"status v", nil, exitDone, ""},
		{"delete v x", missing, exitFailed, "graphvol: no snapshot is named \"x\"; near: monday\n"},
		{"diff v x y", missing, exitFailed, "near: monday\n"},
		{"verify v --read-data", nil, exitFailed, "1 problem in 1 snapshot"},
		{"snapshot v", status.Error(codes.Canceled, "context canceled"), exitFailed, "graphvol: interrupted\n"},
		{"nonsense", nil, exitUsage, "unknown command \"nonsense\""},
		{"snapshot", nil, exitUsage, "snapshot takes one VOLUME, not nothing; see: graphvol snapshot --help\n"},
		{"snapshot a b", nil, exitUsage, "not a b"},
		{"snapshot v --nonsense", nil, exitUsage, "unknown flag: --nonsense"},
		{"diff v a", nil, exitUsage, "diff takes VOLUME and two SNAPSHOTs"},
		{"restore v a", nil, exitUsage, "restore takes VOLUME"},
		{"delete v", nil, exitUsage, "delete takes VOLUME and at least one SNAPSHOT, not only \"v\""},
		{"prune v --max-unused 101", nil, exitUsage, "--max-unused 101: want a percentage, 0 to 100"},
		{"mount a", nil, exitUsage, "mount takes BACKING and MOUNT"},
		{"mount-store dir:/a", nil, exitUsage, "mount-store takes URL and DIR, not only \"dir:/a\""},
		{"mount-store /a b", nil, exitUsage, "a target is given by a URL"},
		{"mount-store dir:/a dir:/b c", nil, exitUsage, "add --erasure K+M"},
		{"mount-store dir:/a dir:/b c --erasure 2+1", nil, exitUsage, "at least 3 targets"},
		{"mount-store dir:/a b --cache-size 1X", nil, exitUsage, "\"1X\" is no size"},
		{"mount-store dir:/a b --cache-size 0", nil, exitUsage, "give --cache-size a size"},
		{"mount-store dir:/a b --refresh -1s", nil, exitUsage, "--refresh"},
		{"mount a b --cache none", nil, exitUsage, "there is no cache mode \"none\": choose writeback or through"},
		{"mount a b --snapdir x/y", nil, exitUsage, "plain file name"},
		{"mount a b --log-level loud", nil, exitUsage, "there is no log level \"loud\""},
		{"mount a b --snapshot-timeout 5", nil, exitUsage, "invalid argument"},
		{"mount /nonexistent /tmp", nil, exitFailed, "the backing directory /nonexistent does not exist: check the path, or make it with mkdir -p\n"},
		{"umount /nonexistent", nil, exitFailed, "no volume is mounted at /nonexistent"},
		{"mount a b --settle-after -1s", nil, exitUsage, "--settle-after can't be negative"},
		{"mount a b --scrub-every -1h", nil, exitUsage, "--scrub-every can't be negative"},
		{"mount a b --scrub-limit 10K", nil, exitUsage, "would never end"},
		{"mount a b --scrub-limit fast", nil, exitUsage, "--scrub-limit: \"fast\" is no number of bytes a second"},
		{"scrub v --limit fast", nil, exitUsage, "\"fast\" is no number of bytes a second"},
		{"scrub", nil, exitUsage, "scrub takes one VOLUME"},
		{"repair", nil, exitUsage, "repair takes one VOLUME"},
		{"mount a b --hang-timeout 1ms", nil, exitUsage, "1ms is too short a time to call a server hung"},
		{"upgrade", nil, exitUsage, "upgrade takes one VOLUME or more, or --all"},
		{"upgrade v --all", nil, exitUsage, "upgrade takes one VOLUME or more, or --all"},
		{"upgrade /nonexistent", nil, exitFailed, "/nonexistent does not exist"},
		{"serve nonsense", nil, exitUsage, "read mount options"},
	} {
		a, _, errOut := newApp(t, &fakeVolume{fail: c.fail})
		code := a.run(t.Context(), strings.Fields(c.line))
		got := errOut.String()
		if code != c.code || !strings.Contains(got, c.want) {
			t.Errorf("%s: exit code %d, stderr %q; want %d, %q", c.line, code, got, c.code, c.want)
		}
		if lines := strings.Count(got, "\n"); (c.want == "") != (lines == 0) || lines > 1 {
			t.Errorf("%s: stderr has %d lines: %q", c.line, lines, got)
		}
	}
}

func TestCompletion(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"delete v ", "monday\t"},
		{"diff v a ", "latest\t"},
		{"restore v ", "monday\t"},
		{"mount --cache ", "through"},
		{"snapsh", "snapshots\t"},
	} {
		a, out, _ := newApp(t, &fakeVolume{})
		args := append([]string{"__complete"}, strings.Split(c.line, " ")...)
		if code := a.run(t.Context(), args); code != exitDone || !strings.Contains(out.String(), c.want) {
			t.Errorf("%q: exit code %d, %s", c.line, code, out)
		}
	}
	a, out, _ := newApp(t, &fakeVolume{})
	if code := a.run(t.Context(), []string{"completion", "bash"}); code != exitDone || !strings.Contains(out.String(), "__start_graphvol") {
		t.Errorf("completion bash: %d", code)
	}
}

// TestPathsAreUnambiguous: two paths are never shown as the same text, nor in JSON as the same pair of members.
func TestPathsAreUnambiguous(t *testing.T) {
	texts, pairs := map[string]string{}, map[[2]string]string{}
	for _, p := range []string{
		"plain", "a\nb", `"a\nb"`, `a\nb`, "\xff", "\xfe", "\ufffd", `\xff`, `"\xff"`, "a -> b", `"a -> b"`, "ü", "u\u0308", "\u200bx", " x", "x ", "\x1b[31m", "",
		"(no known name)", "x (removed)",
	} {
		text := shown([]byte(p))
		if other, ok := texts[text]; ok {
			t.Errorf("%q and %q are both shown as %s", p, other, text)
		}
		if strings.ContainsAny(text, "\n\x1b") || !utf8.ValidString(text) {
			t.Errorf("%q spoils a terminal: %q", p, text)
		}
		texts[text] = p
		js, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if p == "" {
			continue // a name that isn't known
		}
		pair := [2]string{string(js), exact([]byte(p))}
		if other, ok := pairs[pair]; ok {
			t.Errorf("%q and %q are both %q in JSON", p, other, pair)
		}
		pairs[pair] = p
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.00 KiB", 10 << 10: "10.0 KiB", 999 << 10: "999 KiB", 1 << 20: "1.00 MiB", 1<<20 - 1: "1.00 MiB",
		5 << 40: "5.00 TiB", 20<<20 + 512<<10: "20.5 MiB",
	} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "-", 1500: "2µs", 1234567: "1.23ms", 250 * time.Millisecond: "250ms", 12345 * time.Millisecond: "12.3s", 75 * time.Second: "1m15s",
	} {
		if got := duration(d); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "4k": 4 << 10, "512M": 512 << 20, "1GiB": 1 << 30, "10GB": 10 << 30, "2T": 2 << 40,
		"": -1, "M": -1, "-1": -1, "1.5G": -1, "1X": -1, "9223372036854775807": 1<<63 - 1, "8388608T": -1, "1 G": -1,
	} {
		got, err := parseSize(text)
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
}
