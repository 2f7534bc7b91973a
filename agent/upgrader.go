package agent

import (
	"log/slog"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"graphvol/agent/api"
	"graphvol/fs/hold"
)

// holder is what a service needs of the process that holds the mount.
type holder interface {
	Restart(path string, program *os.File) error
	Restarted() (hold.Restart, time.Duration, bool)
	CanRestart() bool
}

var _ holder = (*hold.Session)(nil)

// work is what a server has under way, and a restart would cost.
type work interface {
	// quieten keeps more from beginning and waits until nothing is under way.
	quieten(*api.UpgradeRequest, api.Volume_UpgradeServer) error
	// holdBack keeps more from beginning for so long.
	holdBack(time.Duration)
}

// upgrader has another program serve the volume in this one's place.
type upgrader struct {
	holder holder
	mount  string
	log    *slog.Logger
	busy   sync.Mutex // held while an upgrade is prepared
}

func (u *upgrader) upgrade(req *api.UpgradeRequest, stream api.Volume_UpgradeServer, w work) error {
	if !u.busy.TryLock() {
		return refuse(codes.Aborted, "the volume is being upgraded already")
	}
	defer u.busy.Unlock()
	if !u.holder.CanRestart() {
		return refuse(codes.FailedPrecondition, "this kernel (Linux before 6.9) can't repeat requests, so files that are open would be lost: unmount the volume, and mount it with the new program")
	}
	c, err := openCandidate(stream.Context(), string(req.GetProgram()), u.mount)
	if err != nil {
		return statusOf(stream.Context(), u.log, "the upgrade", err)
	}
	defer c.close()
	if err := stream.Send(&api.UpgradeEvent{Version: c.Version}); err != nil {
		return err
	}
	if err := w.quieten(req, stream); err != nil {
		w.holdBack(0)
		return statusOf(stream.Context(), u.log, "the upgrade", err)
	}
	w.holdBack(upgradeGrace)
	u.log.InfoContext(stream.Context(), "another program is to serve", "program", c.path, "version", c.Version)
	if err := u.restart(c, stream); err != nil {
		w.holdBack(0)
		return err
	}
	return nil
}

func (u *upgrader) restart(c *candidate, stream api.Volume_UpgradeServer) error {
	// Told first: afterwards the connection may end at any moment.
	if err := stream.Send(&api.UpgradeEvent{Restarting: true}); err != nil {
		return err
	}
	if err := u.holder.Restart(c.path, c.file); err != nil {
		return refuse(codes.FailedPrecondition, "the process that holds the mount is gone, so nobody could start another server: unmount the volume and mount it again")
	}
	return nil
}

// restartOf is how the polite restart went that this server came by; nil: it came otherwise.
func (u *upgrader) restartOf() *api.Restart {
	r, waited, ok := u.holder.Restarted()
	if !ok {
		return nil
	}
	return &api.Restart{Program: []byte(r.Program), Error: r.Error, Waited: durationpb.New(waited)}
}
