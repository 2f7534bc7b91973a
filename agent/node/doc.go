// Package node is a node's daemon, graphvol agent: it mounts the volumes of its configuration, takes snapshots of them, and works with other agents. docs/cluster.md is the
// page for people, docs/coordination.md the design.
//
// # What it isn't
//
// It stands in no database's way. Each volume has a holder and a server of its own (package agent), which it starts and then reaches over STATE/socket like any command does. When it
// ends, however that comes, volumes stay mounted and go on; the next one finds them.
//
// # Parts
//
//	Run            reads the configuration, mounts, listens, joins the cluster, until its context ends
//	part           this node's part in a snapshot of the cluster: cluster.Local over its volumes
//	nodeService    what other agents ask
//	clusterService what people ask; what only the coordinator can do is passed on to it
//	peers          connections to other agents
//
// # Lock order
//
//	Node.mounting, Node.keeping: a volume's turn, held across calls of the volume; never both
//	  Node.mu, peers.mu: leaves, never held across a call
package node
