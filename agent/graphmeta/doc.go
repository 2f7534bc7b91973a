// Package graphmeta reads what a graph is: its vertex types, its edge types, where its partitions are, and the stamp by which the database tells one state of these from another. A
// snapshot of a cluster has it beside the data, and is only taken while it doesn't change.
//
// It comes as a JSON object from a program, a file or PostgreSQL. docs/cluster.md describes the format for people; here is what is relied on:
//
//   - version is needed: a text that isn't empty.
//   - vertex_types and edge_types: lists of names, or of objects with a name and whatever else there is to say of a type. No name comes twice.
//   - partitions: an object, of a partition's id to the list of the nodes that have it. Neither the list nor a name in it is empty, and none comes twice.
//   - in_progress: a text that says what is changing the graph right now, as a schema change or a job that moves partitions. Empty: nothing.
//   - Other keys are kept as they are, and count.
//
// The order of types and of a partition's nodes doesn't count: a new leader among the same nodes is no change of what is where. What is empty is as if it were left out.
//
// The canonical encoding is that object without spaces: keys in the order of their bytes, types in that of their names, nodes in theirs; a type of which nothing but the name is said
// is its name; strings with the escapes of RFC 8785, numbers as they were written. Digest is its SHA-256. It is a part of the cluster's manifests, so it never changes.
//
// Nothing here keeps anything: all functions and providers are safe for concurrent use.
package graphmeta
