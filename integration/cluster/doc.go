// Package cluster tests agents on several nodes: the built binary, each agent with its own etcd in a network namespace of its own, all joined by a bridge, volumes that are really
// mounted. It is also what the demo and the benchmark are made of.
//
// # Network
//
//	hub      a namespace with the bridge
//	node     a namespace for each, with eth0, whose other end is a port of the bridge
//
// Only the network is the nodes' own. Their files, mounts and processes are the test's, which reads what they have and kills them. No namespace has a name: they are gone
// with the last process and descriptor in them, however a test ends. A machine that dies does so with all processes in its namespace, and is given another one. A slow node has a wire
// between its port and the bridge. Where namespaces can't be made, all nodes are on the loopback interface, and nothing can be cut.
//
// # Order
//
// Pairs of files on two volumes prove that a snapshot is of one moment: a client writes a number to the first, and when that has returned, to the second. In a snapshot the second is never
// ahead of the first, and never more than one behind.
package cluster
