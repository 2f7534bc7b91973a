package hold

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

func FuzzDecodeMessage(f *testing.F) {
	f.Add([]byte(`{"op":"hello","version":1,"takeover":true,"init":"AAA=","negotiated":{"resend":true},"count":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeMessage(b); err == nil && m.Version > ProtocolVersion {
			t.Error("a newer protocol is accepted")
		}
	})
}

// FuzzDecodeInfo: whatever a pid file says, no process but the one that it names for good is taken for a holder, and none gets a signal.
func FuzzDecodeInfo(f *testing.F) {
	whole, err := json.Marshal(Info{Holder: Process{PID: os.Getpid(), Start: 1, Boot: "b"}, Mount: "/mnt/graph", Backing: "/srv/graph", Restarts: 3})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	for _, pid := range []string{"0", "-1", "1", "9223372036854775807", "1e3"} {
		f.Add([]byte(`{"holder":{"pid":` + pid + `,"start":0,"boot":""},"server":{"pid":` + pid + `}}`))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := decodeInfo(b)
		if err != nil {
			return
		}
		for _, p := range []Process{in.Holder, in.Server} {
			now, err := ProcessOf(p.PID)
			if real := err == nil && now == p && p.PID > 0; p.Alive() != real {
				t.Errorf("%+v: alive %v, want %v", p, !real, real)
			}
			if err := p.Signal(0); err == nil && !p.Alive() {
				t.Errorf("%+v got a signal", p)
			}
		}
	})
}

func TestMountsSeesRoot(t *testing.T) {
	m, ok, err := MountAt("/")
	if err != nil || !ok || m.Point != "/" {
		t.Errorf("%+v, %v, %v", m, ok, err)
	}
	if _, ok, err := MountAt(t.TempDir()); ok || err != nil {
		t.Errorf("a plain directory: %v, %v", ok, err)
	}
}

// A number that was used again must not be taken for the process that had it.
func TestProcessIdentity(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	p, err := ProcessOf(cmd.Process.Pid)
	if err != nil || !p.Alive() {
		t.Fatalf("%+v, %v", p, err)
	}
	for _, other := range []Process{{p.PID, p.Start - 1, p.Boot}, {p.PID, p.Start, "another boot"}, {}} {
		if other.Alive() {
			t.Errorf("%+v lives", other)
		}
		if err := other.Signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("signal to %+v: %v", other, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait: %v", err)
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Not reaped yet: it counts as ended all the same.
	if err := p.Wait(context.Background()); err != nil || p.Alive() {
		t.Errorf("wait: %v, alive %v", err, p.Alive())
	}
	cmd.Wait()
}

func TestInfoRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), InfoFile)
	self, err := ProcessOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	want := Info{Holder: self, Mount: "/m", Backing: "/b", Restarts: 2}
	if err := want.write(path); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadInfo(path); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if err := checkInfo(path); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}
	os.WriteFile(path, []byte("{"), 0o600)
	if _, err := ReadInfo(path); err == nil {
		t.Error("half a file is accepted")
	}
	if err := checkInfo(path); err != nil {
		t.Errorf("half a file keeps the state locked: %v", err)
	}
}

func TestAttachWithoutHolder(t *testing.T) {
	if _, err := Attach(nil); !errors.Is(err, ErrNoHolder) {
		t.Errorf("got %v", err)
	}
}

func TestResent(t *testing.T) {
	if Resent(&fuse.InHeader{Unique: 42}) || !Resent(&fuse.InHeader{Unique: 42 | 1<<63}) {
		t.Error("the top bit tells")
	}
}

func TestNoDevice(t *testing.T) {
	_, err := mountDirect(mountOptions{Point: filepath.Join(t.TempDir(), "none")})
	if err == nil {
		t.Fatal("mounted at a path that isn't there")
	}
}

func TestBusyErrorIsShort(t *testing.T) {
	e := &BusyError{Point: "/m", Submounts: []string{"/m/x"}}
	for pid := range 9 {
		e.Users = append(e.Users, User{PID: pid, Command: "db", How: []string{"cwd", "/m/a", "/m/b", "map"}})
	}
	if s := e.Error(); !strings.Contains(s, "db (pid 0: cwd, /m/a and 2 more)") || !strings.Contains(s, "6 more") {
		t.Error(s)
	}
}

// If go-fuse keeps its buffers elsewhere one day, this says so before a database notices.
func TestReadBuffersAreKeptResident(t *testing.T) {
	requireFuse(t)
	dir := t.TempDir()
	srv, err := fuse.NewServer(fuse.NewDefaultRawFileSystem(), dir, &fuse.MountOptions{DirectMount: os.Geteuid() == 0})
	if err != nil {
		t.Fatal(err)
	}
	if err := keepResident(srv); err != nil {
		t.Error(err)
	}
	go srv.Serve()
	if err := srv.Unmount(); err != nil {
		t.Fatal(err)
	}
}
