package hook

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// wordName is the variable in the environment of a hook, and of what it starts, that says whose they are.
const wordName = "GRAPHVOL_HOOK"

// formerPoll is how often a hook that was told to end is looked for.
const formerPoll = 10 * time.Millisecond

// former is a pre hook of an agent that died. Its processes are those with the word, since the agent may have died before it knew of one, and those of the group, since a program may have exchanged its
// environment. What has a session of its own isn't ended: a time-out wouldn't do that either, and it may be a database.
type former struct {
	word    string
	session int
	group   int // 0: unknown, or gone
}

// end ends all processes of the hook, and waits until they have ended.
func (f former) end() error {
	f.signal(unix.SIGTERM) // once: what they start to tidy up may run
	for until := time.Now().Add(grace); time.Now().Before(until); time.Sleep(formerPoll) {
		if len(f.processes()) == 0 {
			return nil
		}
	}
	for until := time.Now().Add(grace); time.Now().Before(until); time.Sleep(formerPoll) {
		if f.signal(unix.SIGKILL) == 0 {
			return nil
		}
	}
	return fmt.Errorf("processes %v can't be ended", f.processes())
}

func (f former) signal(s unix.Signal) int {
	all := f.processes()
	for _, pid := range all {
		unix.Kill(pid, s)
	}
	return len(all)
}

func (f former) processes() (pids []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if p, err := inspect(pid); err == nil && !p.ended && p.session == f.session && (f.group != 0 && p.group == f.group || f.hasWord(pid)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (f former) hasWord(pid int) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && f.word != "" && slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool { return string(v) == wordName+"="+f.word })
}

// processInfo is what the kernel says of a process.
type processInfo struct {
	ended          bool // it only waits for its parent
	group, session int
	start          string // tells it from every other process that has, had or will have its number
}

func inspect(pid int) (processInfo, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return processInfo{}, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return processInfo{}, err
	}
	// The second field, the command's name, may hold anything: this begins with the third.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return processInfo{}, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	p := processInfo{ended: fields[0] == "Z" || fields[0] == "X", start: fields[19] + "/" + strings.TrimSpace(string(boot))}
	_, err = fmt.Sscan(fields[2]+" "+fields[3], &p.group, &p.session)
	return p, err
}
