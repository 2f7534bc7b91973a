package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"graphvol/agent"
	"graphvol/agent/api"
	"graphvol/agent/reach"
)

// servers are the agent's listeners: the socket for commands of this machine, and one for other agents.
type servers struct {
	grpc []*grpc.Server
	ln   []net.Listener
}

// listen opens the listeners.
func (n *Node) listen() (*servers, error) {
	s := &servers{}
	local, err := listenLocal(n.socket())
	if err != nil {
		return nil, err
	}
	s.add(n, local)
	if n.boot.Node.Listen == "" {
		return s, nil
	}
	ln, err := net.Listen("tcp", n.boot.Node.Listen)
	if err != nil {
		local.Close()
		return nil, &agent.Error{Code: codes.FailedPrecondition, Message: fmt.Sprintf("can't listen on %s: %v; choose another address (node: listen)", n.boot.Node.Listen, errors.Unwrap(err)), Err: err}
	}
	var opts []grpc.ServerOption
	if n.certs != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(n.certs.ServerConfig())))
	}
	s.add(n, ln, opts...)
	return s, nil
}

// listenLocal makes the socket. Who holds the state directory's lock owns what is there.
func listenLocal(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket of an earlier agent: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; its path may have 107 bytes: choose a shorter one (node: state)", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil { // the directory is 0700
		return nil, errors.Join(fmt.Errorf("protect %s: %w", path, err), ln.Close())
	}
	return ln, nil
}

func (s *servers) add(n *Node, ln net.Listener, opts ...grpc.ServerOption) {
	g := grpc.NewServer(append(append(opts, authorized()...),
		n.tracing.ServerOption(),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: reach.KeepaliveTime / 2, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: reach.KeepaliveTime, Timeout: reach.KeepaliveTimeout}),
	)...)
	api.RegisterNodeServer(g, &nodeService{Node: n})
	api.RegisterClusterServer(g, &clusterService{Node: n})
	grpc_health_v1.RegisterHealthServer(g, n.health)
	reflection.Register(g)
	s.grpc, s.ln = append(s.grpc, g), append(s.ln, ln)
}

func (s *servers) serve(log *slog.Logger) {
	for i, g := range s.grpc {
		go func() {
			if err := g.Serve(s.ln[i]); err != nil {
				log.Error("the agent doesn't answer any more", "address", s.ln[i].Addr().String(), "err", err)
			}
		}()
	}
}

// stop ends all calls. Parts of snapshots that aren't committed are undone.
func (s *servers) stop() {
	for i, g := range s.grpc {
		g.Stop()
		s.ln[i].Close()
	}
}
