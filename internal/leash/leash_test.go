package leash

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain is also a process that starts one, tells its id, and waits to be killed.
func TestMain(m *testing.M) {
	if os.Getenv("LEASH_OWNER") == "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("sleep", "1000")
	if _, err := Start(cmd, syscall.SIGKILL); err != nil {
		os.Exit(1)
	}
	os.Stdout.WriteString(strconv.Itoa(cmd.Process.Pid) + "\n")
	select {}
}

func TestItEndsWithItsOwner(t *testing.T) {
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), "LEASH_OWNER=1")
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if !runs(pid) {
		t.Fatal("it doesn't run")
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait() // killed
	for deadline := time.Now().Add(20 * time.Second); runs(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it has outlived its owner")
		}
	}
}

// runs tells whether a process is there, and hasn't ended.
func runs(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestEnded(t *testing.T) {
	ended, err := Start(exec.Command("true"), syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	<-ended
	if ended, err := Start(exec.Command("/none"), syscall.SIGKILL); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	} else {
		<-ended
	}
}
