package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// States of a member of the agents' own etcd.
const (
	EtcdLeader     = "leader"
	EtcdVoter      = "member"
	EtcdLearner    = "learner"     // it was added, and has no vote until it has what the others have
	EtcdNotStarted = "not started" // it was added, and its agent has never come
)

// EtcdMember is a member of the agents' own etcd.
type EtcdMember struct {
	ID    uint64
	Name  string // of its node
	URL   string // for the other members
	State string
}

// Errors of EtcdMembers, beside ErrEtcd and ErrRemoved.
var (
	// ErrEtcdElsewhere: the members of that etcd are its own tool's business.
	ErrEtcdElsewhere = errors.New("the agents use an etcd that is there already (etcd: endpoints), whose members its own tool changes: etcdctl member")
	// ErrEtcdMember: a member with this name or address is there already.
	ErrEtcdMember = errors.New("the cluster's etcd has such a member already")
	// ErrNoEtcdMember: there is none.
	ErrNoEtcdMember = errors.New("the cluster's etcd has no such member")
	// ErrQuorum: after the change etcd would have no majority.
	ErrQuorum = errors.New("too few members would answer then, and etcd would stop")
)

const (
	// etcd changes members only when it has been connected to enough of them for 5 s, so shortly after a start it is asked again.
	healthPatience = 8 * time.Second
	healthPause    = 500 * time.Millisecond
)

// EtcdMembers are the members of the agents' own etcd.
type EtcdMembers struct {
	etcd *Etcd
	keys keys
}

// NewEtcdMembers gives the members of a cluster's etcd.
func NewEtcdMembers(etcd *Etcd, cluster string) *EtcdMembers {
	return &EtcdMembers{etcd, newKeys(cluster)}
}

// addedAs has the name under which a member was added: etcd learns it from the member itself.
func (k keys) addedAs(id uint64) string { return k.prefix + "added/" + strconv.FormatUint(id, 16) }

// takenOut has when a node was last taken out.
func (k keys) takenOut(name string) string { return k.prefix + "removed/" + name }

// List gives all members by name, as this node knows them: also while etcd has no majority.
func (e *EtcdMembers) List(ctx context.Context) ([]EtcdMember, error) {
	return e.list(ctx, clientv3.WithSerializable())
}

// list without options waits for a leader, as a change that is asked for while one is elected gets lost.
func (e *EtcdMembers) list(ctx context.Context, opts ...clientv3.OpOption) ([]EtcdMember, error) {
	if e.etcd.own == nil {
		return nil, ErrEtcdElsewhere
	}
	if err := e.etcd.Removed(); err != nil {
		return nil, err
	}
	res, err := bounded(ctx, e.etcd, func(ctx context.Context) (*clientv3.MemberListResponse, error) {
		return e.etcd.MemberList(ctx, opts...)
	})
	if err != nil {
		return nil, err
	}
	var all []EtcdMember
	for _, m := range res.Members {
		all = append(all, e.member(ctx, m))
	}
	slices.SortFunc(all, func(a, b EtcdMember) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

func (e *EtcdMembers) member(ctx context.Context, m *etcdserverpb.Member) EtcdMember {
	out := EtcdMember{ID: m.ID, Name: m.Name, URL: strings.Join(m.PeerURLs, ","), State: EtcdVoter}
	switch {
	case m.Name == "":
		out.State = EtcdNotStarted
		res, err := bounded(ctx, e.etcd, func(ctx context.Context) (*clientv3.GetResponse, error) {
			return e.etcd.Get(ctx, e.keys.addedAs(m.ID), clientv3.WithSerializable())
		})
		if err == nil && len(res.Kvs) > 0 {
			_ = json.Unmarshal(res.Kvs[0].Value, &out.Name) // without a name it is found by its address
		}
	case m.IsLearner:
		out.State = EtcdLearner
	case m.ID == uint64(e.etcd.own.Server.Leader()):
		out.State = EtcdLeader
	}
	return out
}

// Add adds a member, which has no vote until it has come and has what the others have: one that never comes costs nothing.
func (e *EtcdMembers) Add(ctx context.Context, name, url string) (EtcdMember, error) {
	all, err := e.list(ctx)
	if err != nil {
		return EtcdMember{}, err
	}
	for _, m := range all {
		switch {
		case m.Name == name || m.URL == url:
			return EtcdMember{}, fmt.Errorf("%w: %s at %s; if its machine is lost, take that one out first: graphvol cluster member remove %s", ErrEtcdMember, m.Name, m.URL, m.reference())
		case m.URL == aloneURL:
			return EtcdMember{}, fmt.Errorf("the etcd of the node %s has no address for others: write one into its configuration (etcd: listen), and restart its agent", m.Name)
		}
	}
	res, err := changed(ctx, e.etcd, func(ctx context.Context) (*clientv3.MemberAddResponse, error) {
		return e.etcd.MemberAddAsLearner(ctx, []string{url})
	})
	switch {
	case errors.Is(err, rpctypes.ErrTooManyLearners):
		return EtcdMember{}, errors.New("a member that was added before isn't a full one yet: start its agent, or take it back (graphvol cluster member list, graphvol cluster member remove)")
	case errors.Is(err, rpctypes.ErrUnhealthy):
		return EtcdMember{}, fmt.Errorf("%w: start those that don't run, or take out those that are lost (graphvol cluster member remove)", ErrQuorum)
	case err != nil:
		return EtcdMember{}, err
	}
	value, err := json.Marshal(name)
	if err == nil {
		_, err = bounded(ctx, e.etcd, func(ctx context.Context) (*clientv3.PutResponse, error) {
			return e.etcd.Put(ctx, e.keys.addedAs(res.Member.ID), string(value))
		})
	}
	return EtcdMember{ID: res.Member.ID, Name: name, URL: url, State: EtcdNotStarted}, err
}

// Remove takes a member out for good, by its name or its address. Its agent can't come back as that member.
func (e *EtcdMembers) Remove(ctx context.Context, ref string) (EtcdMember, error) {
	all, err := e.list(ctx)
	if err != nil {
		return EtcdMember{}, err
	}
	i := slices.IndexFunc(all, func(m EtcdMember) bool { return m.Name == ref || m.URL == ref })
	switch {
	case i < 0:
		return EtcdMember{}, fmt.Errorf("%w: %q; it has %s", ErrNoEtcdMember, ref, names(all))
	case len(all) == 1:
		return all[i], fmt.Errorf("%w: %s is the last member, and all that the cluster knows is in it", ErrQuorum, ref)
	}
	gone := all[i]
	if err := e.noteTakenOut(ctx, gone.Name); err != nil { // before it is so, as it may be this node
		return gone, err
	}
	_, err = changed(ctx, e.etcd, func(ctx context.Context) (*clientv3.MemberRemoveResponse, error) {
		return e.etcd.MemberRemove(ctx, gone.ID)
	})
	switch {
	case gone.ID == uint64(e.etcd.own.Server.MemberID()) && (errors.Is(err, rpctypes.ErrStopped) || errors.Is(err, ErrRemoved)):
		return gone, nil // that is how it ends
	case errors.Is(err, rpctypes.ErrUnhealthy), errors.Is(err, rpctypes.ErrMemberNotEnoughStarted):
		all = slices.DeleteFunc(all, func(m EtcdMember) bool { return m.ID == gone.ID || m.State == EtcdLearner || m.State == EtcdNotStarted })
		return gone, fmt.Errorf("%w: without %s there are %s, of which %d must answer; start those that don't run, or take out those that are lost first (graphvol cluster status)", ErrQuorum, gone.Name, names(all), len(all)/2+1)
	case err != nil:
		return gone, err
	}
	e.forget(ctx, gone)
	return gone, nil
}

func (e *EtcdMembers) noteTakenOut(ctx context.Context, name string) error {
	value, err := json.Marshal(time.Now().UTC())
	if err == nil {
		_, err = bounded(ctx, e.etcd, func(ctx context.Context) (*clientv3.PutResponse, error) {
			return e.etcd.Put(ctx, e.keys.takenOut(name), string(value))
		})
	}
	return err
}

// Gone tells whether a node was taken out, and isn't back.
func (e *EtcdMembers) Gone(ctx context.Context, name string) bool {
	all, err := e.List(ctx)
	if err != nil || slices.ContainsFunc(all, func(m EtcdMember) bool { return m.Name == name }) {
		return false
	}
	res, err := bounded(ctx, e.etcd, func(ctx context.Context) (*clientv3.GetResponse, error) {
		return e.etcd.Get(ctx, e.keys.takenOut(name))
	})
	return err == nil && len(res.Kvs) > 0
}

// forget removes what a member that is gone has left; its lease too, so that nobody waits for the coordinator that it may have been. It all ends by itself or harms nobody, so that it can't be
// removed is no error: what counts is done.
func (e *EtcdMembers) forget(ctx context.Context, gone EtcdMember) {
	if _, err := e.list(ctx); err != nil { // it was this node, or it was the leader and no other one is elected
		return
	}
	_, _ = bounded(ctx, e.etcd, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return e.etcd.Txn(ctx).Then(clientv3.OpDelete(e.keys.addedAs(gone.ID)), clientv3.OpDelete(e.keys.appliedBy(gone.Name))).Commit()
	})
	_, _ = bounded(ctx, e.etcd, func(ctx context.Context) (*clientv3.LeaseRevokeResponse, error) {
		res, err := e.etcd.Get(ctx, e.keys.node(gone.Name))
		if err != nil || len(res.Kvs) == 0 {
			return nil, err
		}
		return e.etcd.Revoke(ctx, clientv3.LeaseID(res.Kvs[0].Lease))
	})
}

// changed is bounded for changes of members: what etcd refuses because it doesn't know for long enough that the others are there is asked again for a while.
func changed[T any](ctx context.Context, etcd *Etcd, fn func(context.Context) (T, error)) (T, error) {
	for deadline := time.Now().Add(healthPatience); ; {
		v, err := bounded(ctx, etcd, fn)
		if !errors.Is(err, rpctypes.ErrUnhealthy) || time.Now().After(deadline) {
			return v, err
		}
		select {
		case <-ctx.Done():
			return v, ctx.Err()
		case <-time.After(healthPause):
		}
	}
}

// reference is by what Remove finds it.
func (m *EtcdMember) reference() string { return cmp.Or(m.Name, m.URL) }

func names(all []EtcdMember) string {
	var out []string
	for _, m := range all {
		out = append(out, m.reference())
	}
	return strings.Join(out, ", ")
}
