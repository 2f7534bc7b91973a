package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"graphvol/agent"
)

// Exit codes of mount(8), which those of its helpers become.
const (
	mountDone   = 0
	mountUsage  = 1
	mountFailed = 32
)

// invoked runs what this program was called as: itself, or the helper that mount(8) looks for as /sbin/mount.TYPE.
func (a *app) invoked(ctx context.Context, argv []string) int {
	switch name := filepath.Base(argv[0]); name {
	case "mount.graphvol", "mount.fuse.graphvol":
		return a.mountHelper(ctx, name, argv[1:])
	}
	return a.run(ctx, argv[1:])
}

// helperCall is how mount(8) calls a helper: BACKING MOUNT [-sfnv] [-N namespace] [-o options] [-t type].
type helperCall struct {
	mount     agent.MountOptions
	fake      bool
	verbose   bool
	namespace string
	rest      []string // the call without its namespace
}

func (a *app) mountHelper(ctx context.Context, name string, args []string) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, unix.SIGTERM)
	defer stop()
	call, err := parseHelperCall(name, args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprintf(a.out, "usage: %s BACKING MOUNT [-sfnv] [-N namespace] [-o options]\nmount(8) calls it for the type fuse.graphvol; the options are in docs/operations.md\n", name)
		return mountDone
	case err != nil:
		fmt.Fprintf(a.err, "%s: %s\n", name, agent.Message(err))
		return mountUsage
	}
	if err := a.helperMount(ctx, name, call); err != nil {
		fmt.Fprintf(a.err, "%s: %s\n", name, agent.Message(err))
		return mountFailed
	}
	return mountDone
}

func parseHelperCall(name string, args []string) (helperCall, error) {
	var c helperCall
	var sloppy, noMtab bool
	var opts []string
	var fsType string
	f := pflag.NewFlagSet(name, pflag.ContinueOnError)
	f.Usage = func() {}
	f.BoolVarP(&sloppy, "sloppy", "s", false, "")
	f.BoolVarP(&c.fake, "fake", "f", false, "")
	f.BoolVarP(&noMtab, "no-mtab", "n", false, "") // nobody writes one any more
	f.BoolVarP(&c.verbose, "verbose", "v", false, "")
	f.StringArrayVarP(&opts, "options", "o", nil, "")
	f.StringVarP(&c.namespace, "namespace", "N", "", "")
	f.StringVarP(&fsType, "types", "t", "", "")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if err := cobra.ExactArgs(2)(nil, f.Args()); err != nil {
		return c, fmt.Errorf("want BACKING and MOUNT, not %s", countOf(f.Args()))
	}
	c.mount = agent.MountOptions{
		Backing: f.Arg(0), Mount: f.Arg(1), AllowOther: true, HangTimeout: agent.DefaultHangTimeout, SettleAfter: agent.DefaultSettleAfter,
		ScrubEvery: agent.DefaultScrubEvery, ScrubLimit: agent.DefaultScrubLimit,
	}
	c.rest = append([]string{name, f.Arg(0), f.Arg(1)}, flagsOf(map[string]bool{"-s": sloppy, "-f": c.fake, "-v": c.verbose})...)
	for _, list := range opts {
		c.rest = append(c.rest, "-o", list)
		if err := applyMountOptions(&c.mount, list, sloppy); err != nil {
			return c, err
		}
	}
	return c, c.mount.CheckFlags()
}

func flagsOf(set map[string]bool) (out []string) {
	for flag, on := range set {
		if on {
			out = append(out, flag)
		}
	}
	return out
}

func (a *app) helperMount(ctx context.Context, name string, c helperCall) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if c.namespace != "" {
		return enterNamespace(c.namespace, self, c.rest)
	}
	// mount -a calls for everything in fstab that it doesn't find by its source: a volume's is its state directory.
	if agent.IsMounted(ctx, c.mount) {
		if c.verbose {
			fmt.Fprintf(a.out, "%s: %s is mounted at %s already\n", name, c.mount.Backing, c.mount.Mount)
		}
		return nil
	}
	if c.fake {
		return nil
	}
	m, err := agent.Mount(ctx, self, c.mount, a.err)
	if err != nil || !c.verbose {
		return err
	}
	return a.printMounted(ctx, m, false)
}
