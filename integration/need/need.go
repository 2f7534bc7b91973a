// Package need finds the programs that tests, benchmarks and the demo call, and installs missing ones from
// Debian's packages when it may (root, apt-get there). Otherwise it says in one line what to install.
package need

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// debian names the package that brings each program.
func debian() map[string]string {
	return map[string]string{
		"fusermount3": "fuse3",
		"setfacl":     "acl",
		"setfattr":    "attr",
		"gcc":         "gcc libc6-dev",
		"node":        "nodejs",
		"npm":         "npm",
		"db_bench":    "rocksdb-tools",
		"borg":        "borgbackup python3-pyfuse3",
		"restic":      "restic",
		"mkfs.xfs":    "xfsprogs",
		"mkfs.ext4":   "e2fsprogs",
		"mkfs.btrfs":  "btrfs-progs",
		"postgres":    "postgresql",
		"ip":          "iproute2",
	}
}

// Programs makes sure that every named program is there. Progress of an installation goes to w.
// The error is one line that names the packages to install.
func Programs(ctx context.Context, w io.Writer, names ...string) error {
	packages := missing(names)
	if len(packages) == 0 {
		return nil
	}
	list := strings.Join(packages, " ")
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return fmt.Errorf("missing: %s; install it with this system's package manager and try again", list)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("missing: %s; install it with: sudo apt-get install %s", list, list)
	}
	fmt.Fprintln(w, "installing", list)
	install := append([]string{"install", "-y", "--no-install-recommends"}, packages...)
	if out, err := run(ctx, apt, install...); err == nil {
		return recheck(names)
	} else if upd, uerr := run(ctx, apt, "update"); uerr != nil {
		return fmt.Errorf("apt-get update: %w: %s", uerr, lastLine(upd+out))
	}
	if out, err := run(ctx, apt, install...); err != nil {
		return fmt.Errorf("apt-get install %s: %w: %s", list, err, lastLine(out))
	}
	return recheck(names)
}

func recheck(names []string) error {
	if p := missing(names); len(p) > 0 {
		return fmt.Errorf("still missing after the installation: %s", strings.Join(p, " "))
	}
	return nil
}

func missing(names []string) []string {
	known := debian()
	var packages []string
	for _, name := range names {
		if found(name) {
			continue
		}
		p, ok := known[name]
		if !ok {
			p = name
		}
		packages = append(packages, strings.Fields(p)...)
	}
	slices.Sort(packages)
	return slices.Compact(packages)
}

// found looks in the directories for administrators too, and in those of PostgreSQL's releases, which are not in everyone's PATH.
func found(name string) bool {
	if _, err := exec.LookPath(name); err == nil {
		return true
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if _, err := os.Stat(dir + "/" + name); err == nil {
			return true
		}
	}
	releases, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	return err == nil && len(releases) > 0
}

func run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
