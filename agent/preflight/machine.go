package preflight

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"graphvol/agent/clock"
	"graphvol/agent/config"
	"graphvol/agent/preflight/check"
	"graphvol/internal/fusedev"
)

// canMount tells whether this process may mount by itself.
func canMount() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	return unix.Capget(&header, &caps[0]) == nil && caps[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// fuse looks at what a mount needs: the device, and for users who may not mount, the program that does it for them.
func fuse(c *config.File) (rows []check.Row) {
	row := check.Good("fuse", fusedev.Path)
	if err := fusedev.Check(fusedev.Path); err != nil {
		row = check.Bad("fuse", fusedev.Path, err.Error(), "")
		var known *fusedev.Error
		if errors.As(err, &known) {
			row.Fix = known.Fix
		}
	}
	rows = append(rows, row)
	if canMount() {
		return rows
	}
	rows = append(rows, helper(fusedev.Helper()))
	for i := range c.Volumes {
		if !c.Volumes[i].Private {
			return append(rows, allowOther("/etc/fuse.conf"))
		}
	}
	return rows
}

func helper(path string, err error) check.Row {
	if err != nil {
		return check.Bad("fuse", "fusermount3", err.Error(), "apt-get install fuse3")
	}
	st, err := os.Stat(path)
	if err == nil && (st.Mode()&os.ModeSetuid == 0 || ownerOf(st) != 0) {
		return check.Bad("fuse", path, "doesn't run as root (setuid), which mounting needs", fmt.Sprintf("chown root %s && chmod 4755 %s", check.Quote(path), check.Quote(path)))
	}
	return check.Good("fuse", path)
}

func ownerOf(st os.FileInfo) uint32 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return sys.Uid
	}
	return 0
}

// allowOther looks whether others than this user, as the database is, may use what this user mounts.
func allowOther(conf string) check.Row {
	text, err := os.ReadFile(conf)
	if err == nil || os.IsNotExist(err) {
		for line := range strings.Lines(string(text)) {
			if strings.TrimSpace(line) == "user_allow_other" {
				return check.Good("fuse", conf)
			}
		}
		return check.Bad("fuse", conf, "doesn't let "+userName()+" show mounts to other users, so a database that runs as another is kept out: allow it, or say private: true of the volumes",
			"echo user_allow_other >> "+check.Quote(conf))
	}
	return check.Bad("fuse", conf, fmt.Sprintf("can't be read: %v", err), "chmod a+r "+check.Quote(conf))
}

// space looks at how much is free where a volume's state is.
func space(state string, least int64) check.Row {
	var st unix.Statfs_t
	if err := unix.Statfs(existing(state), &st); err != nil {
		return check.Bad("space", state, fmt.Sprintf("how much is free can't be asked: %v", err), "")
	}
	fix := ""
	if _, err := os.Stat(filepath.Join(state, "index.db")); err == nil {
		fix = "graphvol prune " + check.Quote(state)
	}
	switch free := int64(st.Bavail) * st.Frsize; {
	case free < least:
		return check.Bad("space", state, fmt.Sprintf("its disk has %s free, and %s must be (preflight: free-space): make room, give back what deleted snapshots used, or delete more (graphvol forget)",
			humanize.IBytes(uint64(free)), humanize.IBytes(uint64(least))), fix)
	case st.Files > 0 && st.Ffree == 0:
		return check.Bad("space", state, "its disk has no room for another file (no inodes are free): remove some", fix)
	}
	return check.Good("space", state)
}

const (
	pressurePath = "/proc/pressure/memory"
	mostPressure = 20.0 // per cent of the last ten seconds in which every process waited for memory
)

// memory looks whether the machine is short of memory. Kernels that don't tell (PSI) give no row.
func memory(path string) []check.Row {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		var avg10 float64
		if _, err := fmt.Sscanf(line, "full avg10=%f", &avg10); err == nil && avg10 > mostPressure {
			return []check.Row{check.Bad("memory", path, fmt.Sprintf("all processes have waited for memory in %.0f %% of the last ten seconds: end what uses most of it, or give the machine more", avg10),
				"ps -eo pid,rss,args --sort=-rss | head")}
		}
	}
	return []check.Row{check.Good("memory", path)}
}

// Clock looks at this machine's clock, by the time servers of the configuration and by the kernel's word; peers aren't asked. It is for people: before a
// backup an agent asks its own clock.Monitor, which knows more.
func Clock(ctx context.Context, c *config.File) []check.Row {
	m := clock.New(clock.Config{Servers: func() []string { return c.Preflight.NTP }})
	e, err := m.Measure(ctx)
	if err != nil {
		return []check.Row{check.Bad("clock", "this machine", fmt.Sprintf("could not be measured: %v", err), "")}
	}
	var rows []check.Row
	for _, r := range e.Readings {
		if r.Kind == clock.KindNTP && !r.Known {
			rows = append(rows, check.Bad("clock", r.Name, r.Problem, ""))
		}
	}
	if why, paused := m.Paused(); paused {
		return append(rows, check.Bad("clock", "this machine", why, setClock()))
	}
	return append(rows, check.Good("clock", "this machine"))
}

// setClock is the command that sets the clock with what is installed here.
func setClock() string {
	for _, c := range [][]string{{"chronyc", "makestep"}, {"timedatectl", "set-ntp", "true"}} {
		if _, err := exec.LookPath(c[0]); err == nil {
			return strings.Join(c, " ")
		}
	}
	return "apt-get install chrony"
}
