package preflight

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"graphvol/agent/config"
)

// kind is what a path must lead to.
type kind int

const (
	dir      kind = iota
	madeDir       // is made if it is missing, with all above it
	madeHere      // is made if it is missing, but not what it is in
	file
	program
)

// The access that is needed.
const (
	readable = unix.R_OK
	usable   = unix.R_OK | unix.X_OK
	writable = unix.R_OK | unix.W_OK | unix.X_OK
)

// need is a path of the configuration, and what must be true of it.
type need struct {
	check  string // the row's name
	what   string // it is, for people
	path   string
	kind   kind
	access uint32
}

// needs lists all paths of a configuration.
func needs(c *config.File) (all []need) {
	state := c.Node.State
	if state == "" {
		state = config.DefaultNodeState
	}
	all = append(all, need{"path", "the agent's state directory", state, madeDir, writable})
	for _, t := range []struct {
		who string
		tls config.TLS
	}{{"the node's", c.Node.TLS}, {"etcd's", c.Etcd.TLS}} {
		for _, f := range []struct{ what, path string }{{"CA certificate", t.tls.CA}, {"certificate", t.tls.Cert}, {"key", t.tls.Key}} {
			if f.path != "" {
				all = append(all, need{"path", t.who + " " + f.what, f.path, file, readable})
			}
		}
	}
	if c.Metadata.File != "" {
		all = append(all, need{"path", "the graph's metadata", c.Metadata.File, file, readable})
	}
	if len(c.Metadata.Command) > 0 {
		all = append(all, need{"hook", "the command that prints the graph's metadata", c.Metadata.Command[0], program, unix.X_OK})
	}
	for i := range c.Volumes {
		all = append(all, volumeNeeds(&c.Volumes[i])...)
	}
	return all
}

func volumeNeeds(v *config.Volume) (all []need) {
	of := func(what string) string { return fmt.Sprintf("%s of the volume %s", what, v.Label()) }
	mount := need{"path", of("the mount point"), v.Mount, dir, usable}
	if !canMount() && !isVolume(v.Mount) {
		mount.access = writable // fusermount3 wants that
	}
	all = append(all,
		need{"path", of("the backing directory"), v.Backing, dir, writable}, mount,
		need{"path", of("the state directory"), stateOf(v), madeDir, writable})
	for _, h := range v.Hooks.Pre {
		all = append(all, need{"hook", of("a pre hook"), h.Command[0], program, unix.X_OK})
	}
	for _, h := range v.Hooks.Post {
		all = append(all, need{"hook", of("a post hook"), h.Command[0], program, unix.X_OK})
	}
	for _, c := range v.Copies {
		for _, url := range c.Targets {
			if path, ok := strings.CutPrefix(url, "dir:"); ok {
				all = append(all, need{"target", of("a target"), path, madeHere, writable})
			}
		}
	}
	return all
}

// stateOf is where a volume's state is, or will be: beside the directory itself if the configuration doesn't say.
func stateOf(v *config.Volume) string {
	if v.State != "" {
		return v.State
	}
	backing := filepath.Clean(v.Backing)
	if real, err := filepath.EvalSymlinks(backing); err == nil {
		backing = real
	}
	return backing + ".graphvol"
}

// existing is the path itself, or what is nearest above it and there.
func existing(path string) string {
	for ; path != "/" && path != "."; path = filepath.Dir(path) {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			break
		}
	}
	return path
}
