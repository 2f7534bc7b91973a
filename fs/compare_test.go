package fs

import (
	"flag"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// cast is the users of the comparing tests: root, an owner, one who shares the owner's group, and a stranger.
func cast(t testing.TB) []*actor {
	return []*actor{
		newActor(t, user{umask: 0o022}),
		newActor(t, user{uid: 65533, gid: 65533, groups: []int{65533, 4000}, umask: 0}),
		newActor(t, user{uid: 65534, gid: 65534, groups: []int{65534, 65533}, umask: 0o077}),
		newActor(t, user{uid: 4000, gid: 4001, umask: 0o027}),
	}
}

// same runs a script on the mount and on the plain filesystem. Each line is "user command…"; the answers must be equal.
func same(t testing.TB, w *world, users []*actor, name, script string) {
	t.Helper()
	for _, a := range users {
		defer a.closeAll()
	}
	dirs := []string{filepath.Join(w.mnt, name), filepath.Join(w.plain, name)}
	answers := make([][]string, 2)
	lines := strings.Split(strings.TrimSpace(script), "\n")
	for i, dir := range dirs {
		w.must(os.Mkdir(dir, 0o777))
		w.must(os.Chmod(dir, 0o777))
		for _, l := range lines {
			who, cmd, _ := strings.Cut(strings.TrimSpace(l), " ")
			answers[i] = append(answers[i], users[num(who)].run(dir, cmd))
		}
		for _, a := range users {
			a.closeAll()
		}
	}
	for i := range lines {
		if answers[0][i] != answers[1][i] {
			t.Errorf("%s: the mount answers\n\t%q, the plain filesystem\n\t%q, to the last line of\n%s", name, answers[0][i], answers[1][i], strings.Join(lines[:i+1], "\n"))
			return
		}
	}
	for _, d := range dirs {
		os.RemoveAll(d)
	}
}

var (
	seed   = flag.Int64("seed", 0, "seed of the random comparisons; 0: from the clock")
	rounds = flag.Int("rounds", 40, "how many random scripts are compared in each cache mode")
)

// TestRandomComparison does random things as random users on the mount and on the plain filesystem below: every errno and every
// stat must be equal. The seed is printed on failure.
func TestRandomComparison(t *testing.T) {
	needRoot(t)
	bothModes(t, func(t *testing.T, w *world) {
		s := *seed
		if s == 0 {
			s = time.Now().UnixNano()
		}
		rnd := rand.New(rand.NewSource(s))
		users := cast(t)
		for i := 0; i < *rounds && !t.Failed(); i++ {
			same(t, w, users, fmt.Sprint("r", i), randomScript(rnd, 60))
		}
		if t.Failed() {
			t.Logf("repeat with -seed %d", s)
		}
	})
}

func randomScript(rnd *rand.Rand, n int) string {
	pick := func(s ...string) string { return s[rnd.Intn(len(s))] }
	name := func() string {
		return pick("a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "l", "a/x", "d/..", "d/l")
	}
	mode := func() string {
		return fmt.Sprintf("0%o", []int{0o644, 0o755, 0, 0o4755, 0o2755, 0o6777, 0o1777, 0o2745, 0o700, 0o007, 0o070, 0o222}[rnd.Intn(12)])
	}
	id := func() string { return pick("-1", "0", "65533", "65534", "4000", "4001") }
	fd := func() string { return pick("@1", "@2") }
	size := func() string { return fmt.Sprint([]int{0, 1, 100, 4096, 5000, 20000}[rnd.Intn(6)]) }
	b := &strings.Builder{}
	fmt.Fprintf(b, "1 mkdir d %s\n", mode())
	open := map[string]bool{}
	for range n {
		u := pick("0", "1", "1", "2", "3")
		cmd, extra := "", ""
		switch rnd.Intn(30) {
		case 0, 1, 2:
			f := fd()
			open[u+f] = true
			cmd = fmt.Sprintf("open %s %s %s %s", f, name(), pick("rw,creat", "w,creat,excl", "r", "rw,creat,trunc", "w,append", "r,dir", "rw", "w,trunc", "r,creat", "r,nofollow", "rw,creat,nofollow"), mode())
		case 3:
			cmd = fmt.Sprintf("mkdir %s %s", name(), mode())
		case 4:
			cmd = "rmdir " + name()
		case 5:
			cmd = "unlink " + name()
		case 6:
			cmd = "link " + name() + " " + name()
		case 7:
			cmd = "symlink " + pick("a", "d", "nowhere", "d/a", "l", "../a") + " " + name()
		case 8, 9:
			cmd = "rename " + name() + " " + name()
		case 10:
			cmd = "rename2 " + name() + " " + name() + " " + pick("1", "2")
		case 11:
			cmd = fmt.Sprintf("mknod %s %s %s 1 3", name(), pick("f", "c", "b", "s", "r"), mode())
		case 12, 13, 14:
			cmd = "chmod " + name() + " " + mode()
		case 15, 16:
			cmd = pick("chown ", "lchown ") + name() + " " + id() + " " + id()
			if strings.HasSuffix(cmd, "-1 -1") {
				u = "0" // who isn't the owner of a setuid file gets EPERM from a plain filesystem; FUSE's kernel doesn't ask
			}
		case 17:
			cmd = "truncate " + name() + " " + size()
		case 18:
			cmd = "utimens " + name() + " " + pick("5.7", "now", "omit", "-3") + " " + pick("9.123456789", "now", "omit", "0")
		case 19:
			cmd = "access " + name() + " " + pick("1", "2", "4", "7", "0")
		case 20:
			cmd = "ls " + pick("d", "d/e", ".")
		case 21:
			cmd = "setxattr " + name() + " " + pick("user.k", "trusted.k", "security.k", "bad.k") + " v " + pick("0", "1", "2")
		case 22:
			cmd = "listxattr " + name()
		case 23:
			cmd = "readlink " + name()
		case 24:
			cmd = "setacl " + name() + " " + pick("access", "default") + " " + pick("u:7,g:5,o:0", "u:6,user:6:65534,g:4,m:6,o:4", "u:7,user:7:4000,g:7,m:7,o:7", "u:6,g:2,group:7:4000,m:7,o:1")
		default:
			f := fd()
			if !open[u+f] {
				cmd = "stat " + name()
				break
			}
			// Descriptors may have failed to open on both sides alike; then both say EBADF, or act on descriptor 0: avoid that.
			cmd = pick("fstat "+f, "fchmod "+f+" "+mode(), "fchown "+f+" "+id()+" 4000", "pwrite "+f+" "+size()+" "+size(),
				"write "+f+" "+size(), "ftruncate "+f+" "+size(), "pread "+f+" 50 0", "linkfd "+f+" "+name(), "fstat "+f)
			if strings.HasPrefix(cmd, "pwrite") || strings.HasPrefix(cmd, "write") || strings.HasPrefix(cmd, "ftruncate") {
				extra = u + " fstat " + f
			}
		}
		fmt.Fprintf(b, "%s %s\n", u, cmd)
		if extra != "" {
			fmt.Fprintf(b, "%s\n", extra)
		}
		fmt.Fprintf(b, "0 lstat %s\n", name())
		if strings.HasPrefix(cmd, "ch") || strings.HasPrefix(cmd, "setacl") || strings.HasPrefix(cmd, "mk") || strings.HasPrefix(cmd, "open") {
			f := strings.Fields(cmd)
			i := 1
			if f[0] == "open" {
				i = 2
			}
			fmt.Fprintf(b, "0 lstat %s\n", f[i])
		}
	}
	return b.String()
}
