package priority

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// nice is the nice value of a new process, in the words of nice(1).
func nice(t *testing.T, usual bool) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", "read x; nice")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if usual {
		Usual(cmd.Process.Pid)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out.String())
}

func TestRaise(t *testing.T) {
	if err := Raise(); err != nil {
		t.Skipf("needs the right to raise priorities: %v", err)
	}
	defer usual()
	if got := nice(t, false); got != "-10" {
		t.Errorf("a process that is started afterwards has %s", got)
	}
	if got := nice(t, true); got != "0" {
		t.Errorf("one that nobody waits for has %s", got)
	}
}
