package agent

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"graphvol/agent/api"
	"graphvol/fs/hold"
)

// fakeHolder remembers what it was asked for.
type fakeHolder struct {
	started string
	err     error
	old     bool // the kernel can't repeat requests
}

func (h *fakeHolder) Restart(path string, _ *os.File) error {
	if h.err == nil {
		h.started = path
	}
	return h.err
}
func (h *fakeHolder) CanRestart() bool { return !h.old }
func (h *fakeHolder) Restarted() (hold.Restart, time.Duration, bool) {
	return hold.Restart{Program: "/new", Error: "exit status 3"}, 80 * time.Millisecond, true
}

// script makes an executable.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "next")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// saying is a script that tells a version and formats; change may be nil.
func saying(t *testing.T, change func(map[string]int)) string {
	t.Helper()
	formats := Formats()
	if change != nil {
		change(formats)
	}
	b, err := json.Marshal(Program{Version: "v9", Formats: formats})
	if err != nil {
		t.Fatal(err)
	}
	return script(t, `test "$1 $2" = "version --json" && echo '`+string(b)+`'`)
}

// upgrade tells what was waited for and dropped.
func upgrade(t *testing.T, c *Client, req *api.UpgradeRequest) (version string, waited, dropped []string, err error) {
	t.Helper()
	stream, err := c.VolumeClient.Upgrade(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return version, waited, dropped, nil
		}
		if err != nil {
			return version, waited, dropped, err
		}
		version += ev.GetVersion()
		waited, dropped = append(waited, ev.GetWaiting()...), append(dropped, ev.GetDropped()...)
	}
}

func TestUpgradeLooksAtTheProgram(t *testing.T) {
	good := saying(t, nil)
	newer := saying(t, func(f map[string]int) { f["index"]++; f["unheard of"] = 1 })
	for name, c := range map[string]struct {
		path string
		code codes.Code
		want string // in the message; empty: it is started
	}{
		"good":           {good, codes.OK, ""},
		"newer":          {newer, codes.OK, ""},
		"missing":        {"/nonexistent/graphvol", codes.NotFound, "can't be opened: no such file"},
		"relative":       {"graphvol", codes.InvalidArgument, "absolute path"},
		"in the volume":  {"/mnt/graph/bin/graphvol", codes.InvalidArgument, "not lie in the volume"},
		"directory":      {t.TempDir(), codes.PermissionDenied, "may not be executed"},
		"not executable": {"/etc/passwd", codes.PermissionDenied, "may not be executed"},
		"exits":          {script(t, "echo a; echo no such luck >&2; exit 3"), codes.FailedPrecondition, "exit status 3: no such luck"},
		"no graphvol":    {script(t, "echo hello"), codes.FailedPrecondition, "is no graphvol"},
		"other JSON":     {script(t, "echo '{}'"), codes.FailedPrecondition, "is no graphvol"},
		"older format":   {saying(t, func(f map[string]int) { f["index"]-- }), codes.FailedPrecondition, "v9 is too old for this volume: it reads formats up to index 0, the volume has 1"},
		"no formats":     {script(t, `echo '{"version": "v0"}'`), codes.FailedPrecondition, "v0 is too old"},
	} {
		t.Run(name, func(t *testing.T) {
			h := &fakeHolder{}
			c0 := serveFake(t, &fakeLive{}, func(cfg *serviceConfig) { cfg.holder = h })
			_, _, _, err := upgrade(t, c0, &api.UpgradeRequest{Program: []byte(c.path)})
			if status.Code(err) != c.code || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %v, %q", err, c.code, c.want)
			}
			if (h.started == c.path) != (c.want == "") {
				t.Errorf("started %q", h.started)
			}
		})
	}
}

func TestUpgradeWaitsRefusesOrDrops(t *testing.T) {
	l, h := &fakeLive{hold: make(chan struct{})}, &fakeHolder{}
	c := serveFake(t, l, func(cfg *serviceConfig) { cfg.holder = h })
	if _, _, err := take(t, c, &api.SnapshotRequest{Name: "slow", NoWait: true}); err != nil {
		t.Fatal(err)
	}
	req := &api.UpgradeRequest{Program: []byte(saying(t, nil)), Timeout: durationpb.New(10 * time.Millisecond)}
	_, waited, _, err := upgrade(t, c, req)
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "the snapshot slow") || len(waited) == 0 || h.started != "" {
		t.Errorf("bounded: %v, waited for %v, started %q", err, waited, h.started)
	}
	if _, _, err := take(t, c, &api.SnapshotRequest{Name: "next", NoWait: true}); err != nil {
		t.Errorf("a snapshot after a refused upgrade: %v", err)
	}
	req.Force = true
	version, _, dropped, err := upgrade(t, c, req)
	if err != nil || version != "v9" || len(dropped) != 2 || h.started == "" {
		t.Errorf("forced: %v, %s, dropped %v, started %q", err, version, dropped, h.started)
	}
	if _, _, err := take(t, c, &api.SnapshotRequest{Name: "held back"}); status.Code(err) != codes.Aborted {
		t.Errorf("a snapshot while the server is about to end: %v", err)
	}
}

func TestUpgradeNeedsHolderAndKernel(t *testing.T) {
	for _, c := range []struct {
		h    *fakeHolder
		want string
	}{
		{&fakeHolder{err: hold.ErrHolderGone}, "the process that holds the mount is gone"},
		{&fakeHolder{old: true}, "can't repeat requests"},
	} {
		client := serveFake(t, &fakeLive{}, func(cfg *serviceConfig) { cfg.holder = c.h })
		_, _, _, err := upgrade(t, client, &api.UpgradeRequest{Program: []byte(saying(t, nil))})
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
		if _, _, err := take(t, client, &api.SnapshotRequest{}); err != nil {
			t.Errorf("a snapshot after that: %v", err)
		}
	}
	offline := serveFake(t, nil, nil)
	if _, _, _, err := upgrade(t, offline, &api.UpgradeRequest{}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("not mounted: %v", err)
	}
}

func TestStatusTellsOfTheRestart(t *testing.T) {
	c := serveFake(t, &fakeLive{}, nil)
	st, err := c.Status(t.Context(), &api.StatusRequest{})
	if r := st.GetRestart(); err != nil || string(r.GetProgram()) != "/new" || r.GetError() != "exit status 3" || r.GetWaited().AsDuration() != 80*time.Millisecond {
		t.Errorf("%v, %v", st, err)
	}
}
