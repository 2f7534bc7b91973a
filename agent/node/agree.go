package node

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent/cluster"
	"graphvol/agent/preflight"
	"graphvol/agent/preflight/check"
)

// paths are where the volumes are.
func (c *current) paths() (all []cluster.Paths) {
	for _, f := range preflight.Facts(c.file) {
		all = append(all, cluster.Paths{Volume: f.Label, Backing: f.Backing, Mount: f.Mount})
	}
	return all
}

// disagreements tells of volumes that are at other paths on other nodes (S6).
func disagreements(nodes []cluster.Member) []check.Row {
	facts := make(map[string][]preflight.Fact)
	for _, m := range nodes {
		for _, p := range m.Paths {
			facts[m.Name] = append(facts[m.Name], preflight.Fact{Label: p.Volume, Backing: p.Backing, Mount: p.Mount})
		}
	}
	return check.Failed(preflight.Compare(facts))
}

// agree refuses a snapshot of nodes that disagree, if the configuration wants that.
func (n *Node) agree(nodes []cluster.Member) error {
	if !n.now.Load().file.Cluster.SamePaths {
		return nil
	}
	if rows := disagreements(nodes); len(rows) > 0 {
		return status.Error(codes.FailedPrecondition, rows[0].String())
	}
	return nil
}
