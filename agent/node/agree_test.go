package node

import (
	"strings"
	"testing"

	"graphvol/agent/cluster"
	"graphvol/agent/config"
)

func TestAgree(t *testing.T) {
	member := func(name, backing string) cluster.Member {
		return cluster.Member{Name: name, Paths: []cluster.Paths{{Volume: "graph", Backing: backing, Mount: "/mnt/graph"}}}
	}
	same := []cluster.Member{member("a", "/srv/graph"), member("b", "/srv/graph")}
	other := append(same, member("c", "/data/graph"))
	n := &Node{}
	for _, demanded := range []bool{false, true} {
		n.now.Store(&current{file: &config.File{Cluster: config.Cluster{SamePaths: demanded}}})
		if err := n.agree(same); err != nil {
			t.Errorf("nodes that agree: %v", err)
		}
		if err := n.agree(other); (err != nil) != demanded || err != nil && !strings.Contains(err.Error(), "/data/graph on c") {
			t.Errorf("one that doesn't, where that is demanded: %v: %v", demanded, err)
		}
	}
	if rows := disagreements(other); len(rows) != 1 {
		t.Errorf("%v", rows)
	}
}
