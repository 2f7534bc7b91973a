package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"graphvol/agent"
	"graphvol/agent/traceid"
)

// Exit codes, fixed for scripts.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// app is what commands share.
type app struct {
	out, err io.Writer
	version  string
	// connect is agent's Open, unless a test has put something else here.
	connect func(ctx context.Context, volume string) (*agent.Client, error)
}

// usageError is an error in how a command was called.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// shownError was told already; only the exit code is left to say.
type shownError struct{ error }

// run executes one command line and returns the exit code. SIGINT and SIGTERM end what is running in an orderly way.
func (a *app) run(ctx context.Context, args []string) int {
	ctx, stop := signal.NotifyContext(traceid.New(ctx), os.Interrupt, unix.SIGTERM)
	defer stop()
	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	return a.report(cmd, err)
}

func (a *app) report(cmd *cobra.Command, err error) int {
	var usage usageError
	var shown shownError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &shown):
		return exitFailed
	case errors.As(err, &usage), !cmd.HasParent():
		fmt.Fprintf(a.err, "graphvol: %s; see: %s --help\n", agent.Message(err), cmd.CommandPath())
		return exitUsage
	}
	fmt.Fprintf(a.err, "graphvol: %s\n", agent.Message(err))
	return exitFailed
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "graphvol",
		Short: "Snapshots of graph databases' volumes",
		Long: `graphvol mounts the data directory of a graph database through a layer that knows
which blocks change. A snapshot is a pause of milliseconds, storing it reads only
the changed blocks, and every snapshot is a directory: MOUNT/.snapshots/NAME.

VOLUME is a mount point, a backing directory or a state directory.
SNAPSHOT is a name, an id, a unique prefix of one, or latest.

Exit codes: 0 done, 1 failed, 2 wrong usage.`,
		Example: `  graphvol mount /srv/graph /mnt/graph     # the database works on /mnt/graph
  graphvol snapshot /mnt/graph --name before-upgrade
  ls /mnt/graph/.snapshots/before-upgrade
  graphvol umount /mnt/graph`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       a.version,
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetVersionTemplate("graphvol {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = false
	for _, make := range []func() *cobra.Command{
		a.mountCmd, a.umountCmd, a.snapshotCmd, a.snapshotsCmd, a.dirtyCmd, a.diffCmd, a.restoreCmd,
		a.deleteCmd, a.forgetCmd, a.keepCmd, a.releaseCmd, a.pruneCmd, a.rebuildCmd, a.verifyCmd,
		a.syncCmd, a.scrubCmd, a.repairCmd, a.attachCmd, a.mountStoreCmd, a.targetCmd, a.keyCmd, a.certCmd,
		a.agentCmd, a.clusterCmd, a.preflightCmd,
		a.statusCmd, a.upgradeCmd, a.versionCmd, a.holdCmd, a.serveCmd, a.serveStoreCmd,
	} {
		root.AddCommand(make())
	}
	return root
}

// args makes errors of an argument check errors of usage, and says what is missing in the command's own words.
func args(check cobra.PositionalArgs, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, got []string) error {
		if err := check(cmd, got); err != nil {
			return usageError{fmt.Errorf("%s takes %s, not %s", cmd.Name(), want, countOf(got))}
		}
		return nil
	}
}

func countOf(got []string) string {
	switch len(got) {
	case 0:
		return "nothing"
	case 1:
		return fmt.Sprintf("only %q", got[0])
	}
	return strings.Join(got, " ")
}

// open connects to a volume's service.
func (a *app) open(ctx context.Context, volume string) (*agent.Client, error) {
	if a.connect != nil {
		return a.connect(ctx, volume)
	}
	return agent.Open(ctx, volume, a.err)
}
