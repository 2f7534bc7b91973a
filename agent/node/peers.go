package node

import (
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"graphvol/agent/api"
	"graphvol/agent/cluster"
	"graphvol/agent/pki"
	"graphvol/agent/reach"
)

// peers are the connections to other agents. Safe for concurrent use.
type peers struct {
	certs *pki.Files // nil: no TLS
	opts  []grpc.DialOption

	mu struct {
		sync.Mutex
		conns map[string]*grpc.ClientConn // by name and address
	}
}

func newPeers(certs *pki.Files, opts ...grpc.DialOption) *peers {
	p := &peers{certs: certs, opts: opts}
	p.mu.conns = make(map[string]*grpc.ClientConn)
	return p
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.mu.conns {
		c.Close()
	}
	clear(p.mu.conns)
}

// conn gives the connection to a node, which is made when it is first used.
func (p *peers) conn(m cluster.Member) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := m.Name + " " + m.Address
	if c := p.mu.conns[key]; c != nil {
		return c, nil
	}
	creds := insecure.NewCredentials()
	if p.certs != nil {
		creds = credentials.NewTLS(p.certs.ClientConfig(m.Name))
	}
	c, err := reach.Dial(m.Address, creds, p.opts...)
	if err != nil {
		return nil, fmt.Errorf("node %s at %s: %w", m.Name, m.Address, err)
	}
	p.mu.conns[key] = c
	return c, nil
}

func (n *Node) dialNode(m cluster.Member) (api.NodeClient, error) {
	c, err := n.peers.conn(m)
	if err != nil {
		return nil, err
	}
	return api.NewNodeClient(c), nil
}
