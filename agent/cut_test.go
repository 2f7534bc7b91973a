package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"graphvol/agent/api"
	"graphvol/fs/cow"
	"graphvol/internal/priority"
)

// cutter is the caller of one Cut.
type cutter struct {
	t      *testing.T
	stream api.Volume_CutClient
	cancel context.CancelFunc
}

func startCut(t *testing.T, c *Client) *cutter {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	stream, err := c.Cut(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &cutter{t, stream, cancel}
}

// ask asks for a step and gives the answer to it.
func (c *cutter) ask(step api.CutRequest_Step, bound time.Duration) (*api.CutEvent, error) {
	c.t.Helper()
	req := &api.CutRequest{Step: step, Bound: durationpb.New(bound), Snapshot: &api.SnapshotRequest{Name: "one", Tags: []string{"all"}, Hold: "part of all"}}
	if err := c.stream.Send(req); err != nil && !errors.Is(err, io.EOF) {
		c.t.Fatal(err)
	}
	return c.stream.Recv()
}

func (c *cutter) must(step api.CutRequest_Step) *api.CutEvent {
	c.t.Helper()
	ev, err := c.ask(step, time.Minute/10)
	if err != nil || ev.GetDone() != step {
		c.t.Fatalf("%s: %v, %v", step, ev, err)
	}
	return ev
}

// steps in their order.
func steps() []api.CutRequest_Step {
	return []api.CutRequest_Step{api.CutRequest_STEP_PREPARE, api.CutRequest_STEP_READY, api.CutRequest_STEP_HOLD, api.CutRequest_STEP_CUT, api.CutRequest_STEP_COMMIT}
}

// eventually waits until ok is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after ten seconds it isn't so: %s", what)
		}
	}
}

func states(t *testing.T, c *Client) string {
	t.Helper()
	list, err := c.ListSnapshots(t.Context(), &api.ListSnapshotsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, s := range list.GetSnapshots() {
		all = append(all, s.GetState())
	}
	return strings.Join(all, " ")
}

// realTime tells whether this process runs before others.
func realTime(t *testing.T) bool {
	t.Helper()
	a, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return a.Policy == unix.SCHED_RR
}

// mayBeUrgent tells whether the machine allows it.
func mayBeUrgent() bool {
	end, err := priority.Urgent(time.Minute)
	end()
	return err == nil
}

func TestCutGoesThroughItsSteps(t *testing.T) {
	l := &fakeLive{}
	c := serveFake(t, l, nil)
	cut := startCut(t, c)
	for _, step := range steps() {
		ev := cut.must(step)
		if held := l.held.Load(); (held == 1) != (step == api.CutRequest_STEP_HOLD) {
			t.Errorf("after %s %d gates are closed", step, held)
		}
		if ready := step == api.CutRequest_STEP_READY || step == api.CutRequest_STEP_HOLD; realTime(t) != (ready && mayBeUrgent()) {
			t.Errorf("after %s the process's policy is another one", step)
		}
		if step == api.CutRequest_STEP_CUT && (ev.GetSnapshot().GetState() != "pending" || ev.GetSnapshot().GetTags()[0] != "all") {
			t.Errorf("cut: %v", ev.GetSnapshot())
		}
		if step == api.CutRequest_STEP_CUT {
			if got := states(t, c); got != "pending" {
				t.Errorf("before the decision: %s", got)
			}
		}
	}
	var last *api.SnapshotInfo
	for {
		ev, err := cut.stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		last = ev.GetSnapshot()
	}
	if last.GetState() != "complete" || last.GetName() != "one" || last.GetHold() != "part of all" {
		t.Errorf("%v", last)
	}
	// Others may still be storing their parts. Until all have, this one must not be lost to whoever tidies up here.
	if _, err := c.Delete(t.Context(), &api.DeleteRequest{Snapshots: []string{"one"}}); status.Code(err) != codes.FailedPrecondition || !strings.Contains(Message(err), "part of all") {
		t.Errorf("deleting it: %v", err)
	}
}

// Wherever the caller leaves before commit, the gate is open, the slot free, and what was begun is dropped.
func TestCutIsUndoneWithItsCaller(t *testing.T) {
	for n, leave := range map[string]func(*cutter){
		"killed": func(c *cutter) { c.cancel() },
		"closed": func(c *cutter) { c.stream.CloseSend() },
	} {
		for after := range len(steps()) - 1 {
			l := &fakeLive{}
			c := serveFake(t, l, func(cfg *serviceConfig) { cfg.maxPending = 1 })
			cut := startCut(t, c)
			for _, step := range steps()[:after+1] {
				cut.must(step)
			}
			leave(cut)
			want := ""
			if steps()[after] == api.CutRequest_STEP_CUT {
				want = "failed"
			}
			eventually(t, n+": the gate is open and nothing is pending", func() bool { return l.held.Load() == 0 && states(t, c) == want && !realTime(t) })
			if got, err := c.GetSnapshot(t.Context(), &api.GetSnapshotRequest{Snapshot: "one"}); want != "" && (err != nil || got.GetHold() != "") {
				t.Errorf("%s: what has failed is held: %v, %v", n, got, err)
			}
			if _, snap, err := take(t, c, &api.SnapshotRequest{Name: "one"}); err != nil || snap.GetState() != "complete" {
				t.Errorf("%s after step %d: the next snapshot: %v, %v", n, after, snap, err)
			}
		}
	}
}

func TestCutIsTooLateAfterTheBound(t *testing.T) {
	l := &fakeLive{}
	c := serveFake(t, l, nil)
	cut := startCut(t, c)
	cut.must(api.CutRequest_STEP_PREPARE)
	cut.must(api.CutRequest_STEP_READY)
	if _, err := cut.ask(api.CutRequest_STEP_HOLD, 20*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the gate is open", func() bool { return l.held.Load() == 0 })
	if _, err := cut.ask(api.CutRequest_STEP_CUT, 0); status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "too late") {
		t.Errorf("cut after the bound: %v", err)
	}
	if got := states(t, c); got != "" {
		t.Errorf("it has left a snapshot: %s", got)
	}
}

func TestCutRefuses(t *testing.T) {
	c := serveFake(t, &fakeLive{}, nil)
	cut := startCut(t, c)
	if _, err := cut.ask(api.CutRequest_STEP_HOLD, time.Second); status.Code(err) != codes.InvalidArgument {
		t.Errorf("hold first: %v", err)
	}
	for _, bound := range []time.Duration{0, -1, maxHold + 1} {
		cut = startCut(t, c)
		cut.must(api.CutRequest_STEP_PREPARE)
		cut.must(api.CutRequest_STEP_READY)
		if _, err := cut.ask(api.CutRequest_STEP_HOLD, bound); status.Code(err) != codes.InvalidArgument {
			t.Errorf("a bound of %v: %v", bound, err)
		}
	}
	for _, bound := range []time.Duration{0, -1, maxReady + 1} {
		cut = startCut(t, c)
		cut.must(api.CutRequest_STEP_PREPARE)
		if _, err := cut.ask(api.CutRequest_STEP_READY, bound); status.Code(err) != codes.InvalidArgument {
			t.Errorf("ready for %v: %v", bound, err)
		}
	}
	if realTime(t) {
		t.Error("what was refused has left the process urgent")
	}
	c = serveFake(t, &fakeLive{barrier: cow.ErrBarrierTimeout}, nil)
	cut = startCut(t, c)
	cut.must(api.CutRequest_STEP_PREPARE)
	cut.must(api.CutRequest_STEP_READY)
	if _, err := cut.ask(api.CutRequest_STEP_HOLD, time.Second); status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "the volume works on") {
		t.Errorf("requests that don't end: %v", err)
	}
	c = serveFake(t, nil, nil)
	cut = startCut(t, c)
	if _, err := cut.ask(api.CutRequest_STEP_PREPARE, 0); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("not mounted: %v", err)
	}
}

func TestSignOff(t *testing.T) {
	c := serveFake(t, &fakeLive{}, nil)
	for _, bad := range []*api.SignOffRequest{{Id: "a/b/..", Manifest: []byte("{}")}, {Id: "a", Manifest: []byte("{")}, {Id: "a", Manifest: make([]byte, 2<<20)}} {
		if _, err := c.SignOff(t.Context(), bad); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%.20q: %v", bad.GetId(), err)
		}
	}
	state := status1(t, c).GetState()
	path := filepath.Join(state, "store", "clusters", "a.json")
	for _, want := range []string{`{"x":1}`, `{"x":2}`, ""} {
		if _, err := c.SignOff(t.Context(), &api.SignOffRequest{Id: "a", Manifest: []byte(want)}); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); string(got) != want || (want == "") != errors.Is(err, os.ErrNotExist) {
			t.Errorf("stored %q, %v, want %q", got, err, want)
		}
	}
}

func status1(t *testing.T, c *Client) *api.VolumeStatus {
	t.Helper()
	st, err := c.Status(t.Context(), &api.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return st
}
