package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"graphvol/agent"
	"graphvol/chunkstore/limit"
)

// mountRow is what mount --json tells.
type mountRow struct {
	Mount     string `json:"mount"`
	Backing   string `json:"backing"`
	State     string `json:"state"`
	Cache     string `json:"cache"`
	ServerPID int    `json:"server_pid"`
	HolderPID int    `json:"holder_pid"`
}

func (a *app) mountCmd() *cobra.Command {
	var o agent.MountOptions
	var foreground, private, asJSON bool
	var configPath string
	var copies agent.CopyOptions
	var level, scrubLimit, uploadLimit string
	cmd := &cobra.Command{
		Use:   "mount BACKING MOUNT | --config FILE [MOUNT...]",
		Short: "Mount a database's directory as a volume",
		Long: `Mounts the directory BACKING at MOUNT, and returns when it serves. The database then
works on MOUNT; BACKING keeps its files as they are, readable without graphvol. The two
may be the same directory, so that no path changes.

What graphvol keeps beside the files is in the state directory, BACKING.graphvol unless
--state names another. It must not lie in BACKING or below MOUNT, and a local disk is
best.

With --cache writeback the kernel collects writes, as it does on a local disk; with
--cache through each write is passed on before it returns, which is slower.

The mount survives the death of its server: a small holder process starts another one,
and programs that have files open notice nothing but a short pause. A server that lives
but gives no sign of life for --hang-timeout is replaced as well; one that waits for a
slow disk is not. Without root, the program fusermount3 is needed (Debian's package
fuse3).

With --config it mounts the volumes of a configuration, all of them or those that are
named by their mount points; what is mounted already is left alone. docs/config.md
describes the file.

With --foreground it tells systemd how it fares, if that has started it (Type=notify,
WatchdogSec).`,
		Example: `  graphvol mount /srv/graph /mnt/graph
  graphvol mount /srv/graph /srv/graph                      # over itself
  graphvol mount /srv/graph /mnt/graph --state /var/lib/graphvol/graph --cache through
  graphvol mount --config /etc/graphvol/graphvol.yaml`,
		Args: func(cmd *cobra.Command, given []string) error {
			if configPath != "" {
				return onlyFlags(cmd, "config", "json")
			}
			return args(cobra.ExactArgs(2), "BACKING and MOUNT")(cmd, given)
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) < 2 {
				return nil, cobra.ShellCompDirectiveFilterDirs
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if configPath != "" {
				return a.mountConfigured(cmd.Context(), configPath, args, asJSON)
			}
			o.Backing, o.Mount, o.AllowOther = args[0], args[1], !private
			if err := o.LogLevel.UnmarshalText([]byte(level)); err != nil {
				return usageError{fmt.Errorf("there is no log level %q: choose debug, info, warn or error", level)}
			}
			var err error
			if o.ScrubLimit, err = limit.ParseRate(scrubLimit); err != nil {
				return usageError{fmt.Errorf("--scrub-limit: %w", err)}
			}
			if o.UploadLimit, err = limit.ParseRate(uploadLimit); err != nil {
				return usageError{fmt.Errorf("--upload-limit: %w", err)}
			}
			o.Copies = []agent.CopyOptions{copies}
			if err := o.CheckFlags(); err != nil {
				return usageError{err}
			}
			return a.mount(cmd.Context(), o, foreground, asJSON)
		},
	}
	f := cmd.Flags()
	f.StringVar(&configPath, "config", "", "mount what this file says; all other flags but --json are in it")
	f.StringVar(&o.State, "state", "", "state directory (default BACKING.graphvol)")
	f.StringVar(&o.Cache, "cache", agent.CacheWriteback, "writeback or through")
	f.BoolVar(&foreground, "foreground", false, "stay until it is unmounted; ^C unmounts")
	f.StringVar(&o.SnapDir, "snapdir", agent.DefaultSnapDir, "name of the directory of snapshots in MOUNT")
	f.BoolVar(&o.AllowSuid, "allow-suid", false, "honour setuid and setgid bits of files in the volume")
	f.BoolVar(&o.AllowDev, "allow-dev", false, "honour device files in the volume")
	f.BoolVar(&o.NoExec, "no-exec", false, "execute no files of the volume")
	f.BoolVar(&private, "private", false, "keep other users out (default: file modes decide, where the system allows that)")
	f.DurationVar(&o.SnapshotTimeout, "snapshot-timeout", agent.DefaultSnapshotTimeout, "a snapshot that takes longer to begin, or stores nothing for so long, fails")
	f.IntVar(&o.MaxConcurrent, "max-concurrent", agent.DefaultMaxConcurrent, "how many snapshots may be waiting to be stored")
	f.DurationVar(&o.HangTimeout, "hang-timeout", agent.DefaultHangTimeout, "replace a server that gives no sign of life for so long; 0: never")
	f.DurationVar(&o.SettleAfter, "settle-after", agent.DefaultSettleAfter, "sync the backing's disk so long after a snapshot is stored; 0: at once")
	f.StringArrayVar(&copies.Targets, "target", nil, "copy the store to this place too, dir:/PATH or s3://BUCKET/PREFIX?endpoint=HOST; repeat it for more (default: those named before)")
	f.StringVar(&copies.Erasure, "erasure", "", "one copy, spread over all targets as K+M: any M of K+M may be lost, as 4+2 (default: a whole copy on each)")
	f.StringVar(&copies.Encrypt, "encrypt", agent.EncryptAuto, "encrypt copies: yes, no, or auto: all but those in directories")
	f.StringVar(&uploadLimit, "upload-limit", "0", "send so many bytes a second to the copies, all together, as 20MiB/s; 0: no limit")
	f.DurationVar(&o.ScrubEvery, "scrub-every", agent.DefaultScrubEvery, "read everything of the copies so long after the last time, and mend what is damaged; 0: never")
	f.StringVar(&scrubLimit, "scrub-limit", "20MiB/s", "read so many bytes a second for that; 0: no limit")
	f.StringVar(&level, "log-level", slog.LevelInfo.String(), "debug, info, warn or error")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	complete(cmd, "cache", agent.CacheWriteback, agent.CacheThrough)
	complete(cmd, "encrypt", agent.EncryptAuto, agent.EncryptYes, agent.EncryptNo)
	complete(cmd, "log-level", "debug", "info", "warn", "error")
	return cmd
}

// complete offers fixed words for a flag.
func complete(cmd *cobra.Command, flag string, words ...cobra.Completion) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag doesn't exist: a mistake in this file
	}
}

func (a *app) mount(ctx context.Context, o agent.MountOptions, foreground, asJSON bool) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if foreground {
		if err := agent.PrepareMount(ctx, &o, a.err); err != nil {
			return err
		}
		return agent.Hold(ctx, self, o, func(m agent.Mounted) { a.printMounted(ctx, m, asJSON) })
	}
	m, err := agent.Mount(ctx, self, o, a.err)
	if err != nil {
		return err
	}
	return a.printMounted(ctx, m, asJSON)
}

func rowOfMount(m agent.Mounted) mountRow {
	return mountRow{m.Mount, m.Backing, m.State, m.Cache, m.Server, m.Holder}
}

func (a *app) printMounted(ctx context.Context, m agent.Mounted, asJSON bool) error {
	if problem := m.Problem(ctx); problem != "" {
		fmt.Fprintf(a.err, "graphvol: %s\n", problem)
	}
	if asJSON {
		return printJSON(a.out, rowOfMount(m))
	}
	_, err := fmt.Fprintf(a.out, "mounted %s at %s (state in %s)\n", m.Backing, m.Mount, m.State)
	return err
}

// unmountTimeout is what umount waits at most for snapshots that are being stored.
const unmountTimeout = 5 * time.Minute

func (a *app) umountCmd() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:     "umount MOUNT",
		Aliases: []string{"unmount"},
		Short:   "Unmount a volume",
		Long: `Unmounts a volume, and returns when everything is on disk and a new mount may follow.
Snapshots that are still being stored are finished first; those that take longer than
--timeout are dropped, which is said, and the next snapshot covers what they would have
held. If the mount is busy, the processes that use it are named, and nothing changes.

umount(8) works too. A mount whose server is dead is removed.`,
		Example: `  graphvol umount /mnt/graph
  graphvol umount /mnt/graph --timeout 1h`,
		Args:              args(cobra.ExactArgs(1), "one MOUNT"),
		ValidArgsFunction: a.completeVolume,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := agent.Resolve(args[0])
			if errors.Is(err, agent.ErrNoVolume) {
				return fmt.Errorf("no volume is mounted at %s; graphvol status lists those that are", args[0])
			}
			if err != nil {
				return err
			}
			return agent.Unmount(cmd.Context(), p, timeout, a.err)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", unmountTimeout, "how long to wait for snapshots that are being stored")
	return cmd
}
