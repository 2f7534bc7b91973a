package agent

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestOptionsTravel(t *testing.T) {
	o := MountOptions{
		Backing: "/srv/a b\"c", Mount: "/mnt/ü", State: "/var/x", Cache: CacheThrough, SnapDir: ".snap", AllowSuid: true, AllowDev: true,
		AllowOther: true, SnapshotTimeout: time.Minute, MaxConcurrent: 7, LogLevel: -4, UploadLimit: 1 << 20,
		Copies: []CopyOptions{{Targets: []string{"dir:/a", "s3://b/c?endpoint=x"}}, {Targets: []string{"dir:/b", "dir:/c"}, Erasure: "1+1", Encrypt: EncryptNo}},
	}
	if got, err := ParseMountOptions(o.String()); err != nil || !reflect.DeepEqual(got, o) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestCheckRefuses(t *testing.T) {
	root := t.TempDir()
	in := func(name string) string { return filepath.Join(root, name) }
	for _, d := range []string{"graph/mnt", "graph/state", "mnt/state", "mnt/graph", "state/graph", "ro"} {
		if err := os.MkdirAll(in(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(in("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o    MountOptions
		want string
	}{
		{MountOptions{Backing: in("graph"), Mount: in("mnt"), Cache: "none"}, "there is no cache mode"},
		{MountOptions{Backing: in("graph"), Mount: in("mnt"), SnapDir: "a/b"}, "plain file name"},
		{MountOptions{Backing: in("nothing"), Mount: in("mnt")}, "does not exist: check the path"},
		{MountOptions{Backing: in("graph"), Mount: in("nothing")}, "the mount point " + in("nothing") + " does not exist"},
		{MountOptions{Backing: in("file"), Mount: in("mnt")}, "is not a directory"},
		{MountOptions{Backing: in("graph"), Mount: in("file")}, "is not a directory"},
		{MountOptions{Backing: in("graph"), Mount: in("mnt"), State: in("graph/state")}, "inside the backing directory"},
		{MountOptions{Backing: in("graph"), Mount: in("mnt"), State: in("graph")}, "inside the backing directory"},
		{MountOptions{Backing: in("graph"), Mount: in("mnt"), State: in("mnt/state")}, "inside the mount point"},
		{MountOptions{Backing: in("state/graph"), Mount: in("mnt"), State: in("state")}, "inside the state directory"},
		{MountOptions{Backing: in("mnt/graph"), Mount: in("mnt"), State: in("other")}, "which hides it"},
		{MountOptions{Backing: in("graph"), Mount: in("graph/mnt")}, "the mount point " + in("graph/mnt") + " lies inside the backing"},
		{MountOptions{Backing: "/", Mount: in("mnt")}, "the root of the system"},
		{MountOptions{Backing: in("graph"), Mount: in("mnt"), UploadLimit: 1000}, "--upload-limit"},
		{MountOptions{Backing: in("graph"), Mount: in("mnt"), Copies: []CopyOptions{{Targets: []string{"dir:a"}}}}, "absolute"},
		{MountOptions{Backing: in("graph"), Mount: in("mnt"), Copies: []CopyOptions{{Targets: []string{"dir:/a"}, Erasure: "4+2"}}}, "needs 6 targets"},
		{MountOptions{Backing: in("graph"), Mount: in("mnt"), Copies: []CopyOptions{{Targets: []string{"dir:/a"}}, {Targets: []string{"dir:/a"}}}}, "named twice"},
		{MountOptions{Backing: in("graph"), Mount: in("mnt"), Copies: []CopyOptions{{Targets: []string{"dir:/a"}, Encrypt: "maybe"}}}, "no way"},
	} {
		err := c.o.check()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
	over := MountOptions{Backing: in("graph"), Mount: in("graph")}
	if err := over.check(); err != nil || over.State != over.Backing+".graphvol" || over.Cache != CacheWriteback {
		t.Errorf("over itself: %+v, %v", over, err)
	}
}

func TestStateDirectoryIsPrivate(t *testing.T) {
	o := MountOptions{State: filepath.Join(t.TempDir(), "state")}
	if err := os.Mkdir(o.State, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := o.makeState(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(o.State); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	o.State = filepath.Join(o.State, "volume.json", "x")
	if err := os.WriteFile(filepath.Dir(o.State), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := o.makeState(); err == nil || !strings.Contains(err.Error(), "is not a directory: choose another with --state") {
		t.Errorf("got %v", err)
	}
}
