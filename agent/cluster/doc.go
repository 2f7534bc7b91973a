// Package cluster is how agents agree: who is there, who coordinates, and which snapshots of the cluster exist. It stands on etcd, and knows nothing of volumes: a node's
// part in a snapshot is the Node service of package agent/api. docs/coordination.md has the protocol, and why it is enough.
//
// # Layout in etcd
//
//	/graphvol/CLUSTER/nodes/NAME          Member, with the lease of its session
//	/graphvol/CLUSTER/coordinator/LEASE   the coordinator's name; its key's creation revision is the term
//	/graphvol/CLUSTER/snapshots/ID        Record
//	/graphvol/CLUSTER/config/all          YAML: the configuration of all nodes that have none of their own
//	/graphvol/CLUSTER/config/nodes/NAME   YAML: a node's own
//	/graphvol/CLUSTER/applied/NAME        Applied
//	/graphvol/CLUSTER/removed/NAME        when a node was taken out of the members of the agents' own etcd
//	/graphvol/CLUSTER/added/ID            the name of a member of the agents' own etcd that was added, by its id in hexadecimal
//
// Other values are JSON. A Record is written only by the coordinator, in transactions that compare its key of the election: who has lost that can't write any more.
//
//	preparing → cut → complete → deleting → gone
//	        ↘     ↘ failed   ⇅         ↗
//	                       damaged
//
// # Concurrency
//
// Everything exported is safe for concurrent use. A Coordinator has one snapshot at a time between preparing and cut, and MaxConcurrent that are being stored.
package cluster
