package ops

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"graphvol/integration/volume"
)

// TestMountCommand: mount(8) mounts as graphvol mount does, and umount(8) unmounts.
func TestMountCommand(t *testing.T) {
	n := newNamespace(t)
	backing, mount := n.pair("graph")
	n.run(n.bin, "mount", backing, mount)
	plain := n.mounted(mount)
	n.umount(mount)
	if want := "fuse.graphvol " + backing + ".graphvol"; plain != want {
		t.Fatalf("graphvol mount shows as %q, want %q", plain, want)
	}
	for _, fsType := range []string{"fuse.graphvol", "graphvol"} {
		n.run("mount", "-t", fsType, backing, mount, "-o", "cache=through,noexec,_netdev")
		if got := n.mounted(mount); got != plain {
			t.Errorf("mount -t %s shows as %q, want %q", fsType, got, plain)
		}
		if opts := n.run("findmnt", "-rn", "-M", mount, "-o", "VFS-OPTIONS"); !strings.Contains(opts, "noexec") || !strings.Contains(opts, "nosuid") || !strings.Contains(opts, "nodev") {
			t.Errorf("mounted with %s", opts)
		}
		if out := n.run(n.bin, "status", mount); !strings.Contains(out, "through cache") {
			t.Errorf("status: %s", out)
		}
		n.run("sh", "-c", `echo "$1" > "$2/$1"`, "sh", fsType, mount)
		// Once more is no second mount.
		n.run("mount", "-t", fsType, backing, mount)
		if got := n.mounted(mount); got != plain {
			t.Errorf("mounted twice: %q", got)
		}
		n.umount(mount)
		if got, err := os.ReadFile(filepath.Join(backing, fsType)); err != nil || string(got) != fsType+"\n" {
			t.Errorf("the backing has %q, %v", got, err)
		}
	}
}

func TestMountCommandErrors(t *testing.T) {
	n := newNamespace(t)
	backing, mount := n.pair("graph")
	for opts, want := range map[string]string{
		"whatever=1": `unknown mount option "whatever=1"`,
		"ro":         "for a database that writes",
		"cache=no":   "there is no cache mode",
		"state=" + filepath.Join(backing, "state"): "lies inside the backing directory",
	} {
		out, err := n.try("mount", "-t", "fuse.graphvol", backing, mount, "-o", opts)
		if err == nil || !strings.Contains(out, want) || !strings.Contains(out, "mount.fuse.graphvol: ") {
			t.Errorf("-o %s: %v, want %q", opts, err, want)
		}
	}
	if got := n.mounted(mount); got != "" {
		t.Errorf("mounted: %q", got)
	}
	// -s is for options of other systems' tables, -f for a rehearsal.
	n.run("mount", "-f", "-t", "fuse.graphvol", backing, mount)
	if got := n.mounted(mount); got != "" {
		t.Errorf("mount -f mounted: %q", got)
	}
	n.run("mount", "-s", "-t", "fuse.graphvol", backing, mount, "-o", "whatever=1")
	n.umount(mount)
}

// TestFstab: a line of /etc/fstab is enough for mount -a, mount MOUNT and umount MOUNT, and mount -a may come again.
func TestFstab(t *testing.T) {
	n := newNamespace(t)
	one, oneMnt := n.pair("one")
	two, twoMnt := n.pair("with blank")
	self := filepath.Join(n.dir, "self")
	if err := os.Mkdir(self, 0o755); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(n.dir, "state,1")
	escape := strings.NewReplacer(" ", `\040`).Replace
	table := fmt.Sprintf("%s %s fuse.graphvol state=\"%s\",nofail,x-systemd.before=db.service 0 0\n%s %s fuse.graphvol defaults,noatime,cache=through 0 0\n%s %s fuse.graphvol noauto 0 0\n",
		one, oneMnt, state, escape(two), escape(twoMnt), self, self)
	if err := os.WriteFile(filepath.Join(n.dir, "etc", "fstab"), []byte(table), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		n.run("mount", "-a", "-t", "fuse.graphvol")
		if got, want := n.mounted(oneMnt), "fuse.graphvol "+state; got != want {
			t.Errorf("%s: %q, want %q", oneMnt, got, want)
		}
		if got := n.mounted(twoMnt); !strings.HasPrefix(got, "fuse.graphvol ") || strings.Contains(got, "\n") {
			t.Errorf("%s: %q", twoMnt, got)
		}
		if got := n.mounted(self); got != "" {
			t.Errorf("noauto: %q", got)
		}
	}
	n.run("mount", self)
	n.run("sh", "-c", `echo x > "$1/a" && echo x > "$2/a" && echo x > "$3/a"`, "sh", oneMnt, twoMnt, self)
	n.umount(oneMnt, twoMnt, self)
	for _, dir := range []string{one, two, self} {
		if got, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || string(got) != "x\n" {
			t.Errorf("%s: %q, %v", dir, got, err)
		}
	}
	n.run("mount", oneMnt)
	n.run("umount", "-a", "-t", "fuse.graphvol")
	if got := n.mounted(oneMnt); got != "" {
		t.Errorf("umount -a left %q", got)
	}
}

// TestMountNamespace: -N, which mount(8) passes on, mounts there and nowhere else.
func TestMountNamespace(t *testing.T) {
	n := newNamespace(t)
	backing, mount := n.pair("graph")
	helper := filepath.Join(n.dir, "mount.fuse.graphvol")
	if err := os.Symlink(n.bin, helper); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(helper, backing, mount, "-v", "-N", n.path).CombinedOutput(); err != nil || !strings.Contains(string(out), "mounted "+backing) {
		t.Fatalf("%v: %s", err, out)
	}
	if got := n.mounted(mount); !strings.HasPrefix(got, "fuse.graphvol ") {
		t.Errorf("in the namespace: %q", got)
	}
	if volume.Mounted(mount) {
		t.Error("mounted outside too")
	}
	n.umount(mount)
}

// TestUpgradeAll: all volumes that are mounted, and no further one after a program that does not serve.
func TestUpgradeAll(t *testing.T) {
	n := newNamespace(t)
	if out := n.run(n.bin, "upgrade", "--all"); out != "no volume is mounted\n" {
		t.Errorf("without volumes: %s", out)
	}
	var points []string
	for _, name := range []string{"one", "two"} {
		backing, mount := n.pair(name)
		n.run(n.bin, "mount", backing, mount)
		points = append(points, mount)
	}
	var doc struct{ Volumes []upgraded }
	out := n.run(otherBinary(t), "upgrade", "--all", "--json") // by default to the program that is called
	if err := json.Unmarshal([]byte(out), &doc); err != nil || len(doc.Volumes) != 2 {
		t.Fatalf("%v in %s", err, out)
	}
	for i, up := range doc.Volumes {
		if up.Mount != points[i] || up.Version != otherVersion || up.Error != "" {
			t.Errorf("%+v", up)
		}
	}
	out, err := n.try(n.bin, "upgrade", "--all", "--binary", fake(t, n.bin, "exit 7"))
	if err == nil || !strings.Contains(out, "exit status 7") || !strings.Contains(out, "not tried: "+points[1]) {
		t.Errorf("%v", err)
	}
	if out := n.run(n.bin, "status"); strings.Count(out, "graphvol "+otherVersion) != 2 {
		t.Errorf("status: %s", out)
	}
	n.umount(points...)
}
