package ops

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// namespace is a mount namespace of its own, in which /sbin has the helpers of mount(8), and no volume is mounted but the test's own: what
// concerns all volumes can be tried there.
type namespace struct {
	t    *testing.T
	dir  string
	bin  string // graphvol
	path string // of the namespace itself
}

// setup makes a /sbin and an /etc/fstab. $1 is a directory, $2 the binary.
const setup = `
set -eu
sbin=$(readlink -f /sbin)
mkdir -p "$1/sbin" "$1/etc"
mount --bind "$sbin" "$1/sbin"
mount -t tmpfs -o mode=755 tmpfs "$sbin"
ln -s "$1"/sbin/* "$sbin"
ln -s "$2" "$sbin/mount.fuse.graphvol"
ln -s "$2" "$sbin/mount.graphvol"
touch "$1/etc/fstab" /etc/fstab
mount --bind "$1/etc/fstab" /etc/fstab
`

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	rig.NeedFUSE(t)
	rig.NeedRoot(t)
	for _, tool := range []string{"nsenter", "findmnt", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s (Debian's packages util-linux and mount)", tool)
		}
	}
	bin, err := rig.Binary()
	if err != nil {
		t.Fatal(err)
	}
	n := &namespace{t: t, dir: t.TempDir(), bin: bin}
	ready, stop := make(chan error), make(chan struct{})
	go n.live(ready, stop)
	t.Cleanup(func() { close(stop) })
	if err := <-ready; err != nil {
		t.Skipf("no mount namespace here: %v", err)
	}
	if _, err := n.try("sh", "-c", setup, "sh", n.dir, bin); err != nil {
		t.Skipf("no /sbin of its own here: %v", err)
	}
	return n
}

// live is the thread that the namespace lives by.
func (n *namespace) live(ready chan<- error, stop <-chan struct{}) {
	runtime.LockOSThread() // for good: the thread ends with the goroutine
	if unix.Gettid() == unix.Getpid() {
		// What the process's first thread sees is what everybody takes for the process's mounts.
		go n.live(ready, stop)
		<-stop
		return
	}
	n.path = fmt.Sprintf("/proc/%d/task/%d/ns/mnt", unix.Getpid(), unix.Gettid())
	ready <- isolate(filepath.Dir(os.TempDir()))
	<-stop
}

// isolate gives the thread a namespace, and at once takes from it what other tests have mounted: they wait for the end of filesystems that
// they unmount.
func isolate(tmp string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	raw, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	for _, line := range slices.Backward(lines) {
		point := unescape(strings.Fields(line)[4])
		if strings.Contains(line, " - fuse.graphvol ") || strings.HasPrefix(point, tmp+"/") {
			unix.Unmount(point, unix.MNT_DETACH) // fails if another has taken it along, or its directory was removed
		}
	}
	return nil
}

// unescape resolves mountinfo's \ooo.
func unescape(s string) string {
	if u, err := strconv.Unquote(`"` + strings.ReplaceAll(s, `"`, `\"`) + `"`); err == nil {
		return u
	}
	return s
}

// try runs a command in the namespace.
func (n *namespace) try(args ...string) (string, error) {
	out, err := exec.Command("nsenter", append([]string{"--mount=" + n.path, "--"}, args...)...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

func (n *namespace) run(args ...string) string {
	n.t.Helper()
	out, err := n.try(args...)
	if err != nil {
		n.t.Fatal(err)
	}
	return out
}

// pair makes the directories of a volume.
func (n *namespace) pair(name string) (backing, mount string) {
	n.t.Helper()
	backing, mount = filepath.Join(n.dir, name), filepath.Join(n.dir, name+".mnt")
	for _, dir := range []string{backing, mount} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			n.t.Fatal(err)
		}
	}
	return backing, mount
}

// mounted gives type and source of what is mounted at a point, one line for each mount.
func (n *namespace) mounted(point string) string {
	out, _ := n.try("findmnt", "-rn", "-M", point, "-o", "FSTYPE,SOURCE")
	return strings.TrimSpace(out)
}

// umount unmounts with umount(8), and waits until nothing of the binary runs.
func (n *namespace) umount(points ...string) {
	n.t.Helper()
	n.run(append([]string{"umount"}, points...)...)
	for deadline := time.Now().Add(20 * time.Second); len(volume.Processes(n.bin)) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("after umount %v processes %v are left", points, volume.Processes(n.bin))
		}
	}
}
