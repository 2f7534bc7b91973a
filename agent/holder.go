package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"graphvol/fs/hold"
)

const (
	// The kernel's bounds for pages of a volume that it holds back, and for reading ahead (measured; docs/benchmarks.md).
	tuneMaxDirty  = 512 << 20
	tuneReadAhead = 1024 // KiB
)

// Hold is the main function of a holder: it mounts and keeps a server running until the volume is unmounted. onReady is
// called once, when the mount serves. An error before that says why it doesn't.
func Hold(ctx context.Context, self string, o MountOptions, onReady func(Mounted)) error {
	return holdIf(ctx, self, o, nil, onReady)
}

// holdIf is Hold, unless it isn't wanted any more when nothing else is left but to mount. wanted may be nil.
func holdIf(ctx context.Context, self string, o MountOptions, wanted func() error, onReady func(Mounted)) error {
	lf, err := OpenLog(o.State, holderLogName, os.Stderr)
	if err != nil {
		return cannotUseState(o.State, err)
	}
	defer lf.Close()
	log := NewLogger(lf, o.LogLevel)
	stderr, err := openStderr(o.State)
	if err != nil {
		return err
	}
	defer stderr.Close()
	said := false
	man := newManager(log)
	defer man.close()
	every := man.watchdog() / 3
	err = hold.Run(ctx, hold.Config{
		Backing: o.Backing, Mount: o.Mount, Source: o.State,
		Info:       filepath.Join(o.State, hold.InfoFile),
		Argv:       []string{self, "serve", o.String()},
		AllowOther: o.AllowOther, Suid: o.AllowSuid, Dev: o.AllowDev, NoExec: o.NoExec,
		Log: log, Stdout: stderr, Stderr: stderr, Env: serverEnv(), Wanted: wanted,
		HangTimeout: o.HangTimeout, AliveEvery: every, OnAlive: man.alive, OnRestart: man.reloading, OnStop: man.stopping,
		OnReady: func(server int) {
			man.ready(o.Mount, server)
			// Beside the holder's loop: it looks at the mount, and this server may be dead again.
			go tune(o.Mount, log)
			if said {
				log.Info("a new server serves", "server", server)
				return
			}
			said = true
			log.Info("mounted", "backing", o.Backing, "mount", o.Mount, "server", server)
			onReady(Mounted{MountOptions: o, Server: server, Holder: os.Getpid()})
		},
	})
	if err != nil {
		log.Error("the holder ends", "err", err)
		return mountError(err)
	}
	return nil
}

// errOrphan keeps a mount from coming up that nobody knows of any more: whoever has asked for it may have been followed by others, who saw none.
var errOrphan = errors.New("who asked for the mount has ended, so nothing was mounted: mount again")

// HoldDetached is Hold in a process that Mount has started: what it has to say before the mount serves goes to the
// inherited pipe. If Mount's process ends before there is a mount, there will be none.
func HoldDetached(ctx context.Context, self string, o MountOptions) error {
	// A service that mounts is not the holder, which outlives it.
	forgetManager()
	unix.CloseOnExec(readyFD)
	ready := os.NewFile(readyFD, "ready")
	if ready == nil {
		return errors.New("this command is internal: use graphvol mount")
	}
	defer ready.Close()
	err := holdIf(ctx, self, o, func() error {
		if hold.PeerGone(readyFD) {
			return errOrphan
		}
		return nil
	}, func(m Mounted) {
		json.NewEncoder(ready).Encode(Ready{Server: m.Server})
		ready.Close()
	})
	if err != nil {
		// Fails if it was ready before; the log has it in any case.
		json.NewEncoder(ready).Encode(Ready{Error: Message(err)})
	}
	return err
}

// tune sets the kernel's bounds for this mount. Only root may; without it the mount is slower, nothing else.
func tune(mount string, log *slog.Logger) {
	m, ok, err := hold.MountAt(mount)
	if err == nil && ok {
		err = hold.Tune(m, hold.Tuning{ReadAheadKB: tuneReadAhead, MaxDirtyBytes: tuneMaxDirty})
	}
	if err != nil {
		log.Info("the kernel's limits for the mount could not be set, so it is slower than it could be", "err", err)
	}
}

// mountError says what can be done about a failed mount.
func mountError(err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return &Error{codes.PermissionDenied, err.Error() + ": mounting needs root or the program fusermount3 (Debian's package fuse3); in a container, also --device /dev/fuse --cap-add SYS_ADMIN", err}
	}
	return err
}
