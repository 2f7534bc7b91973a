// Package api is the gRPC contract of a volume: the messages and the service that a volume's agent serves on
// STATE/socket, and that the same code serves in process while the volume is not mounted.
//
// The contract is volume.proto; volume.pb.go and volume_grpc.pb.go are generated from it and committed. Fields are
// only ever added, numbers are never reused.
//
// Errors carry standard gRPC codes, and messages made for people:
//
//	InvalidArgument     the request itself is wrong (a snapshot name with a slash, a relative path)
//	NotFound            no such snapshot or path; the message names the nearest ones
//	AlreadyExists       a snapshot of that name exists
//	FailedPrecondition  not possible in this state: not mounted, a destination inside the backing, a newer format
//	ResourceExhausted   too many snapshots are waiting to be sealed, or no space is left
//	DeadlineExceeded    a bound passed: requests in flight did not end, or a seal made no progress
//	DataLoss            stored data is damaged; the message says which and what to do
//	Aborted             not now: the volume is being unmounted, another command has it, a snapshot was dropped by the unmount
//	Unavailable         never from the service: the connection to it was lost, or nobody answers
//	Internal            everything else; details are in STATE/log/agent.log, never in the message
package api

//go:generate make -C ../.. proto
