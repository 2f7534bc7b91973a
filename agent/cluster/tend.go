package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"

	"graphvol/internal/durable"
)

// tendPause is between two looks at what the own member is.
const tendPause = time.Second

// Tend has this node's member of the agents' own etcd be what it should, until ctx ends: one that was added gets its vote when it has what the others have, and one whose address in the
// configuration is another now tells the others. That it was removed is noted for the next start.
func (e *Etcd) Tend(ctx context.Context, log *slog.Logger) {
	if e.own == nil {
		return
	}
	select { // before that a member that was added doesn't know itself that it has no vote
	case <-ctx.Done():
		return
	case <-e.own.Server.StopNotify():
	case <-e.own.Server.ReadyNotify():
	}
	tick := time.NewTicker(tendPause)
	defer tick.Stop()
	for settled := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-e.own.Server.StopNotify():
			e.noteRemoved(log)
			return
		case <-tick.C:
			if settled {
				continue
			}
			var err error
			if settled, err = e.settle(ctx, log); err != nil && !errors.Is(err, rpctypes.ErrMemberLearnerNotReady) && ctx.Err() == nil {
				log.Info("this node's member of etcd isn't a full one yet", "err", err)
			}
		}
	}
}

// settle does the next step, and tells whether none is left.
func (e *Etcd) settle(ctx context.Context, log *slog.Logger) (bool, error) {
	server := e.own.Server
	var self *membership.Member
	for _, m := range server.Cluster().Members() {
		if m.ID == server.MemberID() {
			self = m
		}
	}
	switch {
	case self == nil: // it learns who is in
		return false, nil
	case self.IsLearner:
		_, err := bounded(ctx, e, func(ctx context.Context) (*clientv3.MemberPromoteResponse, error) {
			return e.MemberPromote(ctx, uint64(self.ID))
		})
		if err == nil {
			log.Info("this node's member of etcd has a vote now")
		}
		return false, err
	case e.url != aloneURL && !slices.Equal(self.PeerURLs, []string{e.url}):
		_, err := bounded(ctx, e, func(ctx context.Context) (*clientv3.MemberUpdateResponse, error) {
			return e.MemberUpdate(ctx, uint64(self.ID), []string{e.url})
		})
		if err == nil {
			log.Info("the other members of etcd know this node's new address", "url", e.url, "before", self.PeerURLs)
		}
		return false, err
	}
	return true, nil
}

// noteRemoved writes for the next start that the data in etcd's directory belongs to no member any more.
func (e *Etcd) noteRemoved(log *slog.Logger) {
	gone := e.Removed()
	if gone == nil {
		return
	}
	log.Error("this node takes no part in the cluster any more", "err", gone)
	mark := filepath.Join(e.own.Config().Dir, removedMark)
	if err := durable.WriteFile(mark, fmt.Appendln(nil, e.own.Server.MemberID())); err != nil {
		log.Error("it can't be noted that this node was removed", "err", err)
	}
}
