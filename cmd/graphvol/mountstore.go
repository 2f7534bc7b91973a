package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"graphvol/agent"
	"graphvol/agent/api"
)

// storeRow is what mount-store --json tells.
type storeRow struct {
	Mount     string   `json:"mount"`
	URLs      []string `json:"urls"`
	Volume    string   `json:"volume"`
	Sequence  uint64   `json:"sequence"`
	Snapshots int      `json:"snapshots"`
	Cache     string   `json:"cache"`
	ServerPID int      `json:"server_pid"`
}

func (a *app) mountStoreCmd() *cobra.Command {
	var o agent.StoreOptions
	var foreground, private, asJSON bool
	var key agent.KeySource
	var cacheSize string
	cmd := &cobra.Command{
		Use:   "mount-store URL... DIR",
		Short: "Show a copy of a store as directories, one a snapshot",
		Long: `Mounts a copy of a store, as graphvol mount --target and graphvol sync have made it, at
the empty directory DIR, read-only, and returns when it serves: DIR/NAME has the files of
the snapshot NAME. It takes nothing but the copy, and its key if it is encrypted. Data is
read where it is, when it is needed, and everything is verified. Nothing on the copy is
changed.

DIR can be named as the volume in graphvol snapshots, diff, restore, verify, status and
umount. Snapshots that the volume takes or deletes meanwhile come and go.

What was read is kept in a cache, so that reading it again asks the copy for nothing; the
next mount of the same copy uses it too. Blocks of an encrypted copy are encrypted there,
and the key isn't kept. While the copy can't be reached, what isn't in the cache gives
an I/O error.`,
		Example: `  graphvol mount-store dir:/backup/graph /mnt/backup
  graphvol mount-store s3://backups/graph /mnt/backup --key recovery.txt
  graphvol mount-store dir:/a dir:/b dir:/c /mnt/backup --erasure 2+1
  cp -a /mnt/backup/monday/data /srv/graph
  graphvol umount /mnt/backup`,
		Args: args(cobra.MinimumNArgs(2), "URL and DIR"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			o.URLs, o.Mount, o.AllowOther = args[:len(args)-1], args[len(args)-1], !private
			if o.CacheSize, err = parseSize(cacheSize); err != nil {
				return usageError{fmt.Errorf("--cache-size: %w", err)}
			}
			if err := errors.Join(o.CheckFlags(), key.Check()); err != nil {
				return usageError{err}
			}
			return a.mountStore(cmd.Context(), o, key, foreground, asJSON)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Erasure, "erasure", "", "the copy is spread over all URLs in this layout, as 4+2")
	keyFlags(cmd, &key)
	f.BoolVar(&foreground, "foreground", false, "stay until it is unmounted; ^C unmounts")
	f.StringVar(&o.CacheDir, "cache-dir", "", "each copy has its cache in a directory in this one (default ~/.cache/graphvol)")
	f.StringVar(&cacheSize, "cache-size", "1G", "what the cache may take of the disk, beside an index")
	f.DurationVar(&o.Refresh, "refresh", agent.DefaultRefresh, "look for new snapshots, when somebody lists them, at most so often")
	f.BoolVar(&private, "private", false, "keep other users out (default: file modes decide, where the system allows that)")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) mountStore(ctx context.Context, o agent.StoreOptions, key agent.KeySource, foreground, asJSON bool) error {
	bar := newProgress(a.err, "reading the copy's lists")
	show := func(done, total int64) { bar.update(&api.Progress{DoneBytes: done, TotalBytes: total}) }
	defer bar.done()
	if foreground {
		return agent.ServeStoreHere(ctx, o, key, a.version, a.err, func(ev agent.StoreEvent) {
			if ev.Mounted == nil {
				show(ev.Done, ev.Total)
				return
			}
			bar.done()
			printStore(a.out, o, *ev.Mounted, asJSON) // nobody may be there any more to read it
		})
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	m, err := agent.MountStore(ctx, self, o, key, a.err, show)
	if err != nil {
		return err
	}
	bar.done()
	return printStore(a.out, o, m, asJSON)
}

func printStore(w io.Writer, o agent.StoreOptions, m agent.StoreMounted, asJSON bool) error {
	if asJSON {
		return printJSON(w, storeRow{m.Mount, o.URLs, m.Volume, m.Sequence, m.Snapshots, m.Cache, m.Server})
	}
	_, err := fmt.Fprintf(w, "mounted %s (volume %s, head %d) at %s: %s\n", strings.Join(o.URLs, " "), m.Volume, m.Sequence, m.Mount, plural(int64(m.Snapshots), "snapshot"))
	return err
}

// serveStoreCmd is what mount-store starts: the process that owns the mount and answers the kernel.
func (a *app) serveStoreCmd() *cobra.Command {
	return &cobra.Command{
		Use:    "serve-store OPTIONS",
		Short:  "Serve a mounted store (started by mount-store)",
		Long:   "Owns the mount of a store and answers the kernel's requests. Started by graphvol mount-store; not for people.",
		Hidden: true,
		Args:   args(cobra.ExactArgs(1), "options"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := agent.ParseStoreOptions(args[0])
			if err != nil {
				return usageError{err}
			}
			if err := agent.ServeStoreDetached(cmd.Context(), o, a.version); err != nil {
				return shownError{err} // by mount-store
			}
			return nil
		},
	}
}
