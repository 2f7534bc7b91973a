package preflight

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/agent/config"
	"graphvol/agent/preflight/check"
)

const whole = `
node: {state: P/agent, tls: {ca: P/ca, cert: P/cert, key: P/key}}
etcd: {tls: {ca: P/eca, cert: P/ecert, key: P/ekey}}
metadata: {command: [P/print, -v]}
preflight: {free-space: 1MiB}
volumes:
  - backing: P/b
    mount: P/m
    hooks: {pre: [{command: [P/pre]}, {command: [P/pre]}], post: [{command: [P/post]}]}
    copies: [{targets: ["dir:P/t1", "s3://bucket/x"]}, {targets: ["dir:P/t2", "dir:P/t3"]}]
  - {backing: P/over, mount: P/over, state: P/s}
`

// TestEverythingNamed: each path of a configuration has its row, for what it must be.
func TestEverythingNamed(t *testing.T) {
	c, err := config.Parse([]byte(strings.ReplaceAll(whole, "P/", "/no/such/")))
	if err != nil {
		t.Fatal(err)
	}
	rows := new(Checker).Run(t.Context(), c)
	failed := check.Failed(rows)
	for name, subjects := range map[string]string{
		"path":   "ca cert key eca ecert ekey b m over",
		"hook":   "print pre post",
		"target": "t1 t2 t3",
	} {
		for s := range strings.FieldsSeq(subjects) {
			if r := of(t, failed, name, "/no/such/"+s); !strings.Contains(r.Problem, "exist") && !strings.Contains(r.Problem, "there is no directory") {
				t.Errorf("%+v", r)
			}
		}
	}
	if os.Geteuid() == 0 { // they can be made
		for _, s := range []string{"agent", "b.graphvol", "s"} {
			if r := of(t, rows, "path", "/no/such/"+s); !r.OK {
				t.Errorf("%+v", r)
			}
		}
	}
	for _, s := range []string{"b.graphvol", "s"} {
		of(t, rows, "space", "/no/such/"+s)
	}
	if n := len(slices.DeleteFunc(rows, func(r check.Row) bool { return !strings.HasPrefix(r.Subject, "/no/such/") })); n != 13+4+3+2 {
		t.Errorf("%d rows: %v", n, rows)
	}
	if r := (need{"path", "it", "relative", dir, readable}).look(); r.OK || !strings.Contains(r.Problem, "no absolute path") {
		t.Errorf("%+v", r)
	}
}

// TestAllRight: on a machine where all is as it must be, no row says otherwise; links and a volume mounted over itself are nothing special.
func TestAllRight(t *testing.T) {
	p := newPlace(t)
	for _, d := range []string{"real", "m", "over", "t1", "t2"} {
		p.mkdir(d, 0o755)
	}
	for _, f := range []string{"ca", "cert", "key", "eca", "ecert", "ekey"} {
		p.write(f, 0o400)
	}
	for _, f := range []string{"print", "pre", "post"} {
		p.write(f, 0o755)
	}
	p.must(os.Symlink(p.path("real"), p.path("b")))
	c, err := config.Parse([]byte(strings.ReplaceAll(whole, "P/", p.dir+"/")))
	p.must(err)
	rows := new(Checker).Run(t.Context(), c)
	for _, r := range check.Failed(rows) {
		if r.Name != "fuse" && r.Name != "memory" {
			t.Errorf("%+v", r)
		}
	}
	of(t, rows, "path", p.path("real.graphvol")) // beside the directory itself
	if names, _ := os.ReadDir(p.dir); len(names) != 6+6+3 {
		t.Errorf("something was made: %v", names)
	}
}

// TestHung: a path whose server doesn't answer has its row in time, keeps nothing else from being looked at, and is not asked twice.
func TestHung(t *testing.T) {
	needRoot(t)
	p := newPlace(t)
	at, fd := deviceMount(p, "hung")
	released := false
	release := func() {
		if !released {
			released = true
			p.must(unix.Close(fd))
		}
	}
	defer release()
	c, err := config.Parse([]byte(p.configure(0, "mount", at)))
	p.must(err)
	checker := &Checker{Patience: 300 * time.Millisecond}
	hanging := func() (all []*answer) { // at the path that hangs
		checker.mu.Lock()
		defer checker.mu.Unlock()
		for l, a := range checker.mu.asked {
			if l.path == at {
				all = append(all, a)
			}
		}
		return all
	}
	var first *answer
	for i := range 3 {
		start := time.Now()
		rows := checker.Run(t.Context(), c)
		asked := hanging()
		if len(asked) != 1 {
			t.Fatalf("%d are asked, not one", len(asked))
		}
		if i == 0 {
			first = asked[0]
		} else if asked[0] != first {
			t.Error("what hangs was asked again")
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("it took %s", took)
		}
		if r := of(t, rows, "path", at); r.OK || !strings.Contains(r.Problem, "doesn't answer (asked ") {
			t.Errorf("%+v", r)
		}
		if r := of(t, rows, "path", p.path("b")); !r.OK {
			t.Errorf("%+v", r)
		}
	}
	release()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	checker.Patience = time.Minute
	if r := of(t, checker.Run(ctx, c), "path", at); r.OK || !strings.Contains(r.Problem, "server is dead") {
		t.Errorf("%+v", r)
	}
}

func TestCompare(t *testing.T) {
	facts := func(text string) []Fact {
		c, err := config.Parse([]byte("volumes:\n" + text))
		if err != nil {
			t.Fatal(err)
		}
		return Facts(c)
	}
	rows := Compare(map[string][]Fact{
		"a": facts("  - {name: g, backing: /srv/g, mount: /mnt/g}\n  - {name: w, backing: /srv/w/, mount: /mnt/w}\n  - {name: only, backing: /o, mount: /p}\n"),
		"b": facts("  - {name: g, backing: /srv/g, mount: /mnt/g}\n  - {name: w, backing: /srv/w, mount: /mnt/w/}\n  - {backing: /x, mount: /y}\n"),
		"c": facts("  - {name: g, backing: /srv/G, mount: /mnt/x}\n  - {backing: /z, mount: /y}\n"),
	})
	want := []check.Row{
		check.Bad("agreement", "/y", "the backing directory is /x on b; /z on c", ""),
		check.Bad("agreement", "g", "the backing directory is /srv/g on a, b; /srv/G on c, and the mount point is /mnt/g on a, b; /mnt/x on c", ""),
		check.Good("agreement", "w"),
	}
	if len(rows) != len(want) {
		t.Fatalf("%v", rows)
	}
	for i, w := range want {
		rows[i].Problem, _, _ = strings.Cut(rows[i].Problem, ":")
		if rows[i] != w {
			t.Errorf("got  %+v\nwant %+v", rows[i], w)
		}
	}
	if rows := Compare(nil); len(rows) != 0 {
		t.Errorf("%v", rows)
	}
}
