package preflight

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/agent/preflight/check"
)

// trouble is something that is wrong with a path, made by a function that gives the path.
type trouble struct {
	name    string
	uid     uint32
	check   string // the row's name
	make    func(p *place) string
	problem string
	fix     string // begins so; empty: there is no command
}

// configure writes a configuration in which only one path can be wrong: key is what the path is.
func (p *place) configure(uid int, key, path string) string {
	p.Helper()
	volume := map[string]string{"backing": p.path("b"), "mount": p.path("m"), "state": p.path("s"), "agent": p.path("agent")}
	hook, target, ca := "/bin/true", "s3://bucket/x", ""
	switch key {
	case "hook":
		hook = path
	case "target":
		target = "dir:" + path
	case "ca":
		ca = path
	default:
		volume[key] = path
	}
	for _, dir := range volume {
		if dir != path {
			p.must(os.MkdirAll(dir, 0o755))
			p.must(os.Chown(dir, uid, uid))
		}
	}
	text := fmt.Sprintf("node: {state: %q}\npreflight: {free-space: 1KiB}\nvolumes:\n  - {backing: %q, mount: %q, state: %q, private: true, hooks: {pre: [{command: [%q]}]}, copies: [{targets: [%q]}]}\n",
		volume["agent"], volume["backing"], volume["mount"], volume["state"], hook, target)
	if ca != "" {
		text = strings.Replace(text, "node: {", fmt.Sprintf("node: {tls: {ca: %q, cert: /bin/true, key: /bin/true}, ", ca), 1)
	}
	return text
}

// TestTroubles: each trouble has a row of its own, and only that; and where there is a command that mends it, it does.
func TestTroubles(t *testing.T) {
	needRoot(t)
	for _, c := range troubles() {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t)
			key, _, _ := strings.Cut(c.name, ":")
			path := c.make(p)
			text := p.configure(int(c.uid), key, path)
			rows := p.run(c.uid, text)
			row := of(t, rows, c.check, path)
			if row.OK || !strings.Contains(row.Problem, c.problem) || strings.Contains(row.Problem, "\n") {
				t.Fatalf("%+v, want %q", row, c.problem)
			}
			if !strings.HasPrefix(row.Fix, c.fix) || (c.fix == "") != (row.Fix == "") {
				t.Fatalf("the fix is %q, want %q", row.Fix, c.fix)
			}
			for _, r := range check.Failed(rows) {
				if r.Subject != path && r.Name != "fuse" && r.Name != "memory" {
					t.Errorf("something else is wrong: %+v", r)
				}
			}
			if row.Fix == "" {
				return
			}
			if out, err := exec.Command("sh", "-c", row.Fix).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", row.Fix, err, out)
			}
			if row = of(t, p.run(c.uid, text), c.check, path); !row.OK {
				t.Errorf("after its fix: %+v", row)
			}
		})
	}
}

func troubles() []trouble {
	ro := func(p *place) string {
		at := p.mount("none", "ro", "tmpfs", 0, "mode=777")
		p.must(unix.Mount("none", at, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		return at
	}
	bind := func(p *place) string {
		p.mkdir("real", 0o777)
		at := p.mount(p.path("real"), "bound", "", unix.MS_BIND, "")
		p.must(unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
		return at
	}
	closed := func(p *place) string {
		p.mkdir("closed", 0o700)
		return p.mkdir("closed/in", 0o777)
	}
	return []trouble{
		{"backing: missing", 0, "path", func(p *place) string { return p.path("no", "such") }, "the backing directory of the volume", "mkdir -p"},
		{"backing: missing, for a user", nobody, "path", func(p *place) string { return p.path("no") }, "does not exist", "install -d -o nobody"},
		{"backing: a file", 0, "path", func(p *place) string { return p.write("f", 0o600) }, "is no directory", ""},
		{"backing: below a file", 0, "path", func(p *place) string { return p.write("f", 0o600) + "/x" }, "something above it is no directory", ""},
		{"backing: another's", nobody, "path", func(p *place) string { return p.mkdir("it's", 0o700) }, "may not be read by nobody", "setfacl -m u:nobody:rwx"},
		{"backing: not to be written", nobody, "path", func(p *place) string { return p.mkdir("d", 0o755) }, "may not be written by nobody", "setfacl -m u:nobody:rwx"},
		{"backing: not to be entered", nobody, "path", func(p *place) string { return p.mkdir("d", 0o776) }, "may not be entered by nobody", "setfacl"},
		{"backing: below a closed directory", nobody, "path", closed, "may not enter ", "setfacl -m u:nobody:x "},
		{"backing: read-only disk", 0, "path", ro, "lies on a read-only filesystem", "mount -o remount,rw "},
		{"backing: read-only mount", 0, "path", bind, "is mounted read-only", "mount -o remount,bind,rw "},
		{"backing: read-only mount, by a link", 0, "path", func(p *place) string {
			p.must(os.Symlink(bind(p), p.path("l")))
			return p.path("l")
		}, "is mounted read-only", "mount -o remount,bind,rw "},
		{"backing: dangling link", 0, "path", func(p *place) string {
			p.must(os.Symlink("/no/such", p.path("l")))
			return p.path("l")
		}, "a symbolic link to nothing", ""},
		{"backing: immutable", 0, "path", immutable, "is immutable", "chattr -i"},
		{"mount: missing", 0, "path", func(p *place) string { return p.path("no") }, "the mount point of the volume", "mkdir -p"},
		{"mount: not to be written by who needs fusermount3", nobody, "path", func(p *place) string { return p.mkdir("d", 0o755) }, "may not be written by nobody", "setfacl"},
		{"mount: its server is dead", 0, "path", deadMount, "a mount whose server is dead", "umount -l "},
		{"state: can't be made", nobody, "path", func(p *place) string { return p.path("no", "state") }, "can't be made: ", "install -d -o nobody"},
		{"state: can't be made on a read-only disk", 0, "path", func(p *place) string { return ro(p) + "/a/b" }, "lies on a read-only filesystem", "mount -o remount,rw"},
		{"state: another's", nobody, "path", func(p *place) string { return p.mkdir("d", 0o777) }, "must belong to nobody", "chown nobody "},
		{"state: below a file", 0, "path", func(p *place) string { return p.write("f", 0o600) + "/x" }, "no directory", ""},
		{"hook: missing", 0, "hook", func(p *place) string { return p.path("no") }, "a pre hook of the volume", ""},
		{"hook: a directory", 0, "hook", func(p *place) string { return p.mkdir("d", 0o755) }, "is a directory, and must be a file", ""},
		{"hook: not executable", 0, "hook", func(p *place) string { return p.write("h", 0o644) }, "is not executable", "chmod +x"},
		{"hook: another's", nobody, "hook", func(p *place) string { return p.write("h", 0o700) }, "may not be executed by nobody", "setfacl -m u:nobody:x"},
		{"hook: noexec", 0, "hook", func(p *place) string {
			p.mount("none", "noexec", "tmpfs", unix.MS_NOEXEC, "mode=755")
			return p.write("noexec/h", 0o755)
		}, "runs no programs (noexec)", "mount -o remount,bind,exec"},
		{"hook: a device", 0, "hook", func(*place) string { return "/dev/null" }, "is no regular file", ""},
		{"target: its disk isn't mounted", 0, "target", func(p *place) string { return p.path("disk", "graph") }, "there is no directory", "mkdir -p"},
		{"target: another's", nobody, "target", func(p *place) string { return p.mkdir("d", 0o755) }, "may not be written", "setfacl"},
		{"target: can't be made", nobody, "target", func(p *place) string { return p.mkdir("d", 0o755) + "/new" }, "can't be made", "install -d -o nobody"},
		{"ca: another's", nobody, "path", func(p *place) string { return p.write("ca", 0o600) }, "the node's CA certificate may not be read", "setfacl -m u:nobody:r "},
		{"ca: missing", 0, "path", func(p *place) string { return p.path("ca") }, "does not exist", ""},
	}
}

func immutable(p *place) string {
	d := p.mkdir("d", 0o777)
	if out, err := exec.Command("chattr", "+i", d).CombinedOutput(); err != nil {
		p.Skipf("chattr: %v: %s", err, out)
	}
	p.Cleanup(func() { _ = exec.Command("chattr", "-i", d).Run() })
	return d
}

// deviceMount mounts FUSE on a descriptor that nobody reads.
func deviceMount(p *place, name string) (at string, fd int) {
	at = p.mkdir(name, 0o755)
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		p.Skip(err)
	}
	if err := unix.Mount("test", at, "fuse.graphvol-test", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)); err != nil {
		unix.Close(fd)
		p.Skip(err)
	}
	p.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			p.Error(err)
		}
	})
	return at, fd
}

func deadMount(p *place) string {
	at, fd := deviceMount(p, "dead")
	p.must(unix.Close(fd))
	return at
}
