package node

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent/api"
	"graphvol/agent/cluster"
	"graphvol/agent/config"
)

// ListMembers implements the API.
func (s *clusterService) ListMembers(ctx context.Context, _ *api.ListMembersRequest) (*api.ListMembersResponse, error) {
	all, err := s.etcdMembers.List(ctx)
	if err != nil {
		return nil, statusOf(err)
	}
	return &api.ListMembersResponse{Members: membersOf(all)}, nil
}

// AddMember implements the API.
func (s *clusterService) AddMember(ctx context.Context, req *api.AddMemberRequest) (*api.AddMemberResponse, error) {
	if err := config.CheckName(req.GetName()); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "no node can have the %v", err)
	}
	peer := strings.TrimRight(req.GetUrl(), "/")
	if err := config.CheckURL(peer); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "the address %v", err)
	}
	if u, err := url.Parse(peer); err != nil || u.Hostname() == "" {
		return nil, status.Errorf(codes.InvalidArgument, "the address %q has no host: others must reach it", peer)
	}
	added, err := s.etcdMembers.Add(ctx, req.GetName(), peer)
	if err != nil {
		return nil, statusOf(err)
	}
	s.log.Info("a member was added to etcd", "name", added.Name, "url", added.URL)
	res := &api.AddMemberResponse{Added: memberOf(added)}
	if all, err := s.etcdMembers.List(ctx); err == nil { // it is added, whatever the list says
		res.Members = membersOf(all)
	}
	if nodes := s.now.Load().file.Cluster.Nodes; len(nodes) > 0 && !slices.Contains(nodes, added.Name) {
		res.Notes = append(res.Notes, fmt.Sprintf("cluster: nodes doesn't name %s: without it, snapshots are taken without that node", added.Name))
	}
	return res, nil
}

// RemoveMember implements the API.
func (s *clusterService) RemoveMember(ctx context.Context, req *api.RemoveMemberRequest) (*api.RemoveMemberResponse, error) {
	gone, err := s.etcdMembers.Remove(ctx, strings.TrimRight(req.GetMember(), "/"))
	if err != nil {
		return nil, statusOf(err)
	}
	s.log.Info("a member was removed from etcd", "name", gone.Name, "url", gone.URL)
	res := &api.RemoveMemberResponse{Removed: memberOf(gone)}
	left, err := s.etcdMembers.List(ctx)
	left = slices.DeleteFunc(left, func(m cluster.EtcdMember) bool { return m.ID == gone.ID })
	res.Members = membersOf(left)
	if voters := voting(left); err == nil && voters < 3 {
		res.Notes = append(res.Notes, fmt.Sprintf("etcd has %d of the three members that it needs to do without one: graphvol cluster member add", voters))
	}
	if slices.Contains(s.now.Load().file.Cluster.Nodes, gone.Name) {
		res.Notes = append(res.Notes, fmt.Sprintf("cluster: nodes names %s still: no snapshot is taken until it is back, or taken out there", gone.Name))
	}
	if own, err := s.configs.Get(ctx, gone.Name); err == nil && own.Text != "" && gone.Name != "" {
		res.Notes = append(res.Notes, fmt.Sprintf("the configuration of %s stays, for a machine in its place; graphvol cluster config set --node %s --remove removes it", gone.Name, gone.Name))
	}
	return res, nil
}

// voting counts those that have a vote.
func voting(all []cluster.EtcdMember) (n int) {
	for _, m := range all {
		if m.State == cluster.EtcdLeader || m.State == cluster.EtcdVoter {
			n++
		}
	}
	return n
}

func memberOf(m cluster.EtcdMember) *api.EtcdMember {
	return &api.EtcdMember{Id: strconv.FormatUint(m.ID, 16), Name: m.Name, Url: m.URL, State: m.State}
}

func membersOf(all []cluster.EtcdMember) (out []*api.EtcdMember) {
	for _, m := range all {
		out = append(out, memberOf(m))
	}
	return out
}
