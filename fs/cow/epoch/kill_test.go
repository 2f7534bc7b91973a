package epoch

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"graphvol/index"
)

const childEnv = "GRAPHVOL_EPOCH_CHILD" // directory, epoch, seed

func TestMain(m *testing.M) {
	if arg := os.Getenv(childEnv); arg != "" {
		if err := child(arg); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child marks until it is killed, and says so on stdout after each mark.
func child(arg string) error {
	var dir string
	var n, seed uint64
	if _, err := fmt.Sscan(arg, &dir, &n, &seed); err != nil {
		return err
	}
	e, err := Load(dir, n)
	if err != nil {
		return err
	}
	// What one goroutine says in one write, another can't cut.
	var wg sync.WaitGroup
	for w := range uint64(3) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, w))
			for {
				ino := 1 + r.Uint64N(300)
				i := e.Inode(ino, ino)
				var said string
				switch r.IntN(8) {
				case 0:
					name := fmt.Sprintf("n%d", r.IntN(5000))
					i.MarkName(name)
					said = fmt.Sprintf("name %d %s\n", ino, name)
				case 1:
					i.MarkAttr()
					i.SetIdent(index.Ident{Valid: true, Size: int64(ino), CtimeSec: int64(ino), BtimeNsec: uint32(ino)})
					said = fmt.Sprintf("attr %d -\n", ino)
				case 2:
					i.SetHint(ino, fmt.Sprintf("h%d", r.IntN(100)))
				default:
					b := r.Uint64N(30 * slotBlocks)
					if r.IntN(2) == 0 {
						b = r.Uint64N(64)
					}
					n := 1 + r.Uint64N(100)
					if r.IntN(50) == 0 {
						n = 5 * slotBlocks
					}
					i.MarkBlocks(b, n)
					said = fmt.Sprintf("blocks %d %d+%d\n", ino, b, n)
				}
				if said != "" {
					os.Stdout.WriteString(said)
				}
			}
		})
	}
	wg.Wait()
	return nil
}

// A process that is killed while it marks loses no mark that it told of, and none of its files counts as damaged.
func TestKilled(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	e, err := Create(dir, 4)
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
	var acked []string
	for round := range 12 {
		acked = append(acked, runAndKill(t, fmt.Sprintf("%s 4 %d", dir, r.Uint64()), 1+r.IntN(4000))...)
		e, err := Load(dir, 4)
		if err != nil {
			t.Fatal(err)
		}
		if e.Damaged() != 0 || !e.Durable() {
			t.Fatalf("round %d: %d records damaged, %v", round, e.Damaged(), e.DurableErr())
		}
		for _, line := range acked {
			verifyAcked(t, e, line)
		}
		for i := range e.All {
			if id := i.Ident(); id.Valid && (id.Size != int64(i.Ino()) || id.CtimeSec != id.Size || id.BtimeNsec != uint32(id.Size)) {
				t.Fatalf("inode %d has the ident %+v", i.Ino(), id)
			}
		}
		e.Close()
		runtime.KeepAlive(e)
	}
	t.Logf("%d marks acknowledged", len(acked))
}

// runAndKill starts a child, kills it after it has acknowledged about so many marks, and returns all that it acknowledged.
func runAndKill(t *testing.T, arg string, lines int) (acked []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+arg)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(out)
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if acked = append(acked, strings.TrimSuffix(line, "\n")); len(acked) == lines {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("the child wasn't killed: %v: %s", err, stderr.String())
	}
	return acked
}

func verifyAcked(t *testing.T, e *Epoch, line string) {
	t.Helper()
	f := strings.Fields(line)
	ino, err := strconv.ParseUint(f[1], 10, 64)
	if err != nil {
		t.Fatalf("acknowledgement %q: %v", line, err)
	}
	i := e.Find(ino)
	ok := i != nil
	switch {
	case !ok:
	case f[0] == "name":
		ok = i.HasName(f[2])
	case f[0] == "attr":
		ok = i.Flags()&index.DirtyAttr != 0
	default:
		var b, n uint64
		if _, err := fmt.Sscanf(f[2], "%d+%d", &b, &n); err != nil {
			t.Fatal(err)
		}
		ok = i.Blocks(b, n)
	}
	if !ok {
		t.Fatalf("lost: %s", line)
	}
}
