package preflight

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"graphvol/agent/clock/clocktest"
	"graphvol/agent/config"
	"graphvol/agent/preflight/check"
)

// mends runs a row's fix, and expects that what is looked at is all right then.
func mends(t *testing.T, r check.Row, again func() check.Row) {
	t.Helper()
	if r.OK || r.Fix == "" {
		t.Fatalf("%+v", r)
	}
	if out, err := exec.Command("sh", "-c", r.Fix).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", r.Fix, err, out)
	}
	if r := again(); !r.OK {
		t.Errorf("after its fix: %+v", r)
	}
}

func TestFuseForUsers(t *testing.T) {
	if r := helper("", errors.New("mounting needs root, or the program fusermount3")); r.OK || r.Fix != "apt-get install fuse3" {
		t.Errorf("%+v", r)
	}
	needRoot(t)
	p := newPlace(t)
	prog := p.write("fusermount 3", 0o755)
	p.must(os.Chown(prog, nobody, nobody))
	look := func() check.Row { return helper(prog, nil) }
	if r := look(); !strings.Contains(r.Problem, "doesn't run as root") {
		t.Errorf("%+v", r)
	}
	mends(t, look(), look)

	conf := p.path("fuse.conf")
	look = func() check.Row { return allowOther(conf) }
	mends(t, look(), look)
	p.must(os.WriteFile(conf, []byte("#user_allow_other\n"), 0o600))
	if r := look(); !strings.Contains(r.Problem, "private: true") {
		t.Errorf("%+v", r)
	}
	mends(t, look(), look)
}

// TestFuseHere: rows of the real device, for root and for a user, who is told of fuse.conf only if others are to use a mount.
func TestFuseHere(t *testing.T) {
	needRoot(t)
	p := newPlace(t)
	private := p.configure(nobody, "", "")
	shared := strings.ReplaceAll(private, ", private: true", "")
	count := func(rows []check.Row) (n int) {
		for _, r := range rows {
			if r.Name == "fuse" {
				n++
			}
		}
		return n
	}
	if a, b, c := count(p.run(0, shared)), count(p.run(nobody, private)), count(p.run(nobody, shared)); a != 1 || b != 2 || c != 3 {
		t.Errorf("%d, %d, %d rows", a, b, c)
	}
	if _, err := os.Stat("/dev/fuse"); err == nil {
		if r := of(t, p.run(0, shared), "fuse", "/dev/fuse"); !r.OK {
			t.Errorf("%+v", r)
		}
	}
}

func TestSpace(t *testing.T) {
	needRoot(t)
	p := newPlace(t)
	small := p.mount("none", "small", "tmpfs", 0, "size=1m,nr_inodes=10")
	state := filepath.Join(small, "not", "made")
	if r := space(state, 1<<20); !r.OK {
		t.Errorf("%+v", r)
	}
	r := space(state, 2<<20)
	if r.OK || r.Fix != "" || !strings.Contains(r.Problem, "has 1.0 MiB free, and 2.0 MiB must be") {
		t.Errorf("%+v", r)
	}
	p.must(os.MkdirAll(state, 0o700))
	p.must(os.WriteFile(filepath.Join(state, "index.db"), nil, 0o600))
	if r := space(state, 2<<20); r.Fix != "graphvol prune "+state {
		t.Errorf("%+v", r)
	}
	for i := 0; ; i++ {
		f, err := os.Create(filepath.Join(small, strings.Repeat("x", i+1)))
		if err != nil {
			break
		}
		p.must(f.Close())
	}
	if r := space(state, 1); r.OK || !strings.Contains(r.Problem, "no inodes") {
		t.Errorf("%+v", r)
	}
	full := p.mount("none", "full", "tmpfs", 0, "size=1m")
	if err := os.WriteFile(filepath.Join(full, "x"), make([]byte, 600<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := space(full, 512<<10); r.OK || !strings.Contains(r.Problem, "42") {
		t.Errorf("%+v", r)
	}
}

func TestMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "memory")
	if rows := memory(path); len(rows) != 0 {
		t.Errorf("a kernel that doesn't tell: %v", rows)
	}
	for text, ok := range map[string]bool{
		"some avg10=90.00 avg60=1.00 avg300=0.00 total=1\nfull avg10=19.99 avg60=80.00 avg300=0.00 total=1\n": true,
		"some avg10=90.00 avg60=1.00 avg300=0.00 total=1\nfull avg10=23.70 avg60=0.00 avg300=0.00 total=1\n":  false,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		rows := memory(path)
		if len(rows) != 1 || rows[0].OK != ok || !ok && (!strings.Contains(rows[0].Problem, "24 %") || rows[0].Fix == "") {
			t.Errorf("%s: %v", text, rows)
		}
	}
	if _, err := os.Stat(pressurePath); err == nil {
		if rows := memory(pressurePath); len(rows) != 1 {
			t.Errorf("this machine: %v", rows)
		}
	}
}

func TestClock(t *testing.T) {
	right := clocktest.NTP(t, time.Now, nil)
	ahead := clocktest.NTP(t, func() time.Time { return time.Now().Add(time.Minute) }, nil)
	kiss := clocktest.NTP(t, time.Now, func(p []byte) { p[1] = 0 })
	look := func(servers ...string) []check.Row {
		return Clock(t.Context(), &config.File{Preflight: config.Preflight{NTP: servers}})
	}
	for _, servers := range [][]string{nil, {right}} {
		if rows := look(servers...); len(rows) != 1 || !rows[0].OK {
			t.Errorf("%v: %v", servers, rows)
		}
	}
	if rows := look(ahead); len(rows) != 1 || !strings.Contains(rows[0].Problem, "behind (by "+ahead) || rows[0].Fix != setClock() || rows[0].Fix == "" {
		t.Errorf("%v", rows)
	}
	if rows := look(kiss, right); len(rows) != 2 || rows[0].OK || rows[0].Subject != kiss || !rows[1].OK {
		t.Errorf("%v", rows)
	}
}
