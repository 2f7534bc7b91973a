package main

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"graphvol/agent"
)

func TestHelperCall(t *testing.T) {
	plain := agent.MountOptions{
		Backing: "/b", Mount: "/m", AllowOther: true, HangTimeout: agent.DefaultHangTimeout, SettleAfter: agent.DefaultSettleAfter,
		ScrubEvery: agent.DefaultScrubEvery, ScrubLimit: agent.DefaultScrubLimit,
	}
	with := func(change func(*agent.MountOptions)) agent.MountOptions {
		o := plain
		change(&o)
		return o
	}
	for _, c := range []struct {
		args string
		want agent.MountOptions
	}{
		{"/b /m", plain},
		{"/b /m -n -t fuse.graphvol -o rw", plain},
		{"/b /m -o defaults,auto,nofail,_netdev,noatime,x-systemd.requires=a.service,X-mount.mkdir,comment=a", plain},
		{"-o rw,user,noexec,nosuid,nodev /b /m", with(func(o *agent.MountOptions) { o.NoExec = true })},
		{"/b /m -o suid,dev,exec", with(func(o *agent.MountOptions) { o.AllowSuid, o.AllowDev = true, true })},
		{"/b /m -o suid,nosuid,private", with(func(o *agent.MountOptions) { o.AllowOther = false })},
		{"/b /m -o state=/s,cache=through -o snapdir=old", with(func(o *agent.MountOptions) { o.State, o.Cache, o.SnapDir = "/s", agent.CacheThrough, "old" })},
		{`/b /m -o state="/a,b"`, with(func(o *agent.MountOptions) { o.State = "/a,b" })},
		{"/b /m -o hang-timeout=0,settle-after=0,snapshot-timeout=1m,max-concurrent=3", with(func(o *agent.MountOptions) {
			o.HangTimeout, o.SettleAfter, o.SnapshotTimeout, o.MaxConcurrent = 0, 0, time.Minute, 3
		})},
		{"/b /m -o scrub-every=168h,scrub-limit=5MiB/s", with(func(o *agent.MountOptions) { o.ScrubEvery, o.ScrubLimit = 168*time.Hour, 5<<20 })},
		{"/b /m -o target=dir:/x,target=s3://bucket/p?endpoint=h", with(func(o *agent.MountOptions) {
			o.Copies = []agent.CopyOptions{{Targets: []string{"dir:/x", "s3://bucket/p?endpoint=h"}}}
		})},
		{"/b /m -o erasure=1+1,target=dir:/x,encrypt=yes,target=dir:/y,upload-limit=1MiB/s", with(func(o *agent.MountOptions) {
			o.Copies = []agent.CopyOptions{{Targets: []string{"dir:/x", "dir:/y"}, Erasure: "1+1", Encrypt: "yes"}}
			o.UploadLimit = 1 << 20
		})},
		{"/b /m -s -o whatever=1", plain},
	} {
		got, err := parseHelperCall("mount.graphvol", strings.Fields(c.args))
		if err != nil || !reflect.DeepEqual(got.mount, c.want) {
			t.Errorf("%s: %v\n got %+v\nwant %+v", c.args, err, got.mount, c.want)
		}
	}
}

func TestHelperRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"/b":                         "want BACKING and MOUNT, not only",
		"/b /m /x":                   "want BACKING and MOUNT",
		"/b /m -x":                   "unknown shorthand flag",
		"/b /m -o whatever=1":        `unknown mount option "whatever=1"`,
		"/b /m -o ro":                "for a database that writes",
		"/b /m -s -o ro":             "for a database that writes",
		"/b /m -o remount":           "for a database that writes",
		"/b /m -o state=rel":         "absolute path",
		"/b /m -o state":             "absolute path",
		"/b /m -o cache=none":        "there is no cache mode",
		"/b /m -o cache=":            "choose writeback or through",
		"/b /m -o snapdir=a/b":       "plain file name",
		"/b /m -o suid=1":            "takes no value",
		"/b /m -o hang-timeout=soon": "hang-timeout=soon",
		"/b /m -o max-concurrent=x":  "max-concurrent=x",
	} {
		var out, errOut bytes.Buffer
		a := &app{out: &out, err: &errOut}
		code := a.invoked(t.Context(), append([]string{"/sbin/mount.fuse.graphvol"}, strings.Fields(args)...))
		if code != mountUsage || !strings.HasPrefix(errOut.String(), "mount.fuse.graphvol: ") || !strings.Contains(errOut.String(), want) || strings.Count(errOut.String(), "\n") != 1 {
			t.Errorf("%s: exit code %d, %q, want %q", args, code, errOut.String(), want)
		}
	}
}

func TestHelperFails(t *testing.T) {
	var errOut bytes.Buffer
	a := &app{out: &errOut, err: &errOut}
	if code := a.invoked(t.Context(), []string{"mount.graphvol", "/nonexistent", t.TempDir()}); code != mountFailed || !strings.Contains(errOut.String(), "does not exist") {
		t.Errorf("exit code %d, %q", code, errOut.String())
	}
	if code := a.invoked(t.Context(), []string{"mount.graphvol", "--help"}); code != mountDone {
		t.Errorf("--help: exit code %d", code)
	}
}

func TestSplitOptions(t *testing.T) {
	got := splitOptions("rw,state=\"/a,b\xff\",,x")
	if want := []string{"rw", "state=/a,b\xff", "", "x"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
