package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"golang.org/x/sys/unix"

	"graphvol/agent/config"
)

const (
	removedMark = "removed"      // in etcd's directory: it was of a member that was removed
	removedDir  = "etcd.removed" // where that goes when the node comes back as another member
	// askPatience bounds how long the other members are asked what the cluster is, askPause is between two tries, and askRest what the last ones may take when enough have answered.
	askPatience = 10 * time.Second
	askPause    = 200 * time.Millisecond
	askRest     = 2 * time.Second
)

// prepareStart decides what a member without data is: one of those that begin the cluster, or one that was added to it. A cluster that is there and doesn't expect the member refuses it here, and not
// when it has a vote: what it once had promised is lost.
func prepareStart(cfg *embed.Config, node string, c config.Etcd) error {
	removed := exists(filepath.Join(cfg.Dir, removedMark))
	if len(c.Members) < 2 || !removed && wal.Exist(filepath.Join(cfg.Dir, "member", "wal")) {
		return nil
	}
	there, err := askMembers(cfg.PeerTLSInfo, node, c)
	if removed && err != nil { // it learns from etcd itself how things are
		return nil
	}
	if err != nil || there == nil {
		return err
	}
	mine := cfg.AdvertisePeerUrls[0].String()
	i := slices.IndexFunc(there, func(m *membership.Member) bool { return slices.Contains(m.PeerURLs, mine) })
	switch {
	case removed && (i < 0 || there[i].Name != ""):
		return nil
	case i < 0:
		return fmt.Errorf("the cluster's etcd is there and has no member at %s, and this node has none of its data: on another node, graphvol cluster member add %s %s; then start this agent again", mine, node, mine)
	case there[i].Name == "": // it was added, and never started
		return joinExisting(cfg, node, there, i)
	case len(there[i].ClientURLs) == 0: // the cluster is just beginning
		return nil
	case there[i].Name != node:
		return fmt.Errorf("%s is the address of the member %s of the cluster's etcd: choose another one (etcd: listen and members)", mine, there[i].Name)
	}
	return fmt.Errorf("the cluster's etcd knows this node, whose data of it is gone (%s): on another node, graphvol cluster member remove %s, then graphvol cluster member add %s %s; then start this agent again",
		cfg.Dir, node, node, mine)
}

// joinExisting has the member join the others. What is left of an earlier one, which was removed, is set aside.
func joinExisting(cfg *embed.Config, node string, there []*membership.Member, self int) error {
	if exists(filepath.Join(cfg.Dir, removedMark)) {
		aside := filepath.Join(filepath.Dir(cfg.Dir), removedDir)
		if err := errors.Join(os.RemoveAll(aside), os.Rename(cfg.Dir, aside)); err != nil {
			return fmt.Errorf("set the data of the removed member aside: %w", err)
		}
	}
	var all []string
	for i, m := range there {
		name := m.Name
		switch {
		case i == self:
			name = node
		case name == "":
			name = m.ID.String()
		}
		for _, u := range m.PeerURLs {
			all = append(all, name+"="+u)
		}
	}
	cfg.ClusterState, cfg.InitialCluster = embed.ClusterStateFlagExisting, strings.Join(all, ",")
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// askMembers asks the other members of the configuration which members the cluster has; nil: it isn't there yet. That is believed only if with this node more than half of them are known not to run: a
// node that lost its data, and starts while it reaches nobody, must not begin anew.
func askMembers(files transport.TLSInfo, node string, c config.Etcd) ([]*membership.Member, error) {
	tr, err := transport.NewTransport(files, dialTimeout)
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	defer tr.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), askPatience)
	defer cancel()
	type answer struct {
		members []*membership.Member
		err     error
	}
	answers := make(chan answer, len(c.Members))
	asked := 0
	for name, u := range c.Members {
		if name != node {
			asked++
			go func() {
				members, err := askUntilKnown(ctx, &http.Client{Transport: tr, Timeout: dialTimeout}, u)
				answers <- answer{members, err}
			}()
		}
	}
	var unknown []error
	for silent := 1; asked > 0; asked-- { // this one too
		switch a := <-answers; {
		case a.members != nil:
			return a.members, nil
		case a.err != nil:
			unknown = append(unknown, a.err)
		default:
			if silent++; silent > len(c.Members)/2 {
				defer time.AfterFunc(askRest, cancel).Stop()
			}
		}
	}
	if len(c.Members)-len(unknown) > len(c.Members)/2 {
		return nil, nil
	}
	return nil, fmt.Errorf("this node has no data of the cluster's etcd, and can't find out whether the others have: %w; if one runs and refuses this node, its log/etcd.log says why; it is tried again when this agent is started", OneLine(unknown...))
}

// askUntilKnown asks one member. Both nil: it doesn't run.
func askUntilKnown(ctx context.Context, client *http.Client, peer string) ([]*membership.Member, error) {
	for {
		members, err := ask(ctx, client, peer)
		if err == nil {
			return members, nil
		}
		if errors.Is(err, unix.ECONNREFUSED) {
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(askPause):
		}
	}
}

func ask(ctx context.Context, client *http.Client, peer string) (members []*membership.Member, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, peer+"/members", nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&members); err != nil || len(members) == 0 {
		return nil, fmt.Errorf("%s: it answers, and doesn't know its members yet", peer)
	}
	return members, nil
}
