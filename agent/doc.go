// Package agent is the daemon of a volume, and how commands find and reach one.
//
// # Processes
//
// graphvol mount (Mount) starts a holder (Hold, package fs/hold) in a session of its own, which mounts and starts a server
// (Serve). The server opens the parts from the bottom up, and serves the kernel on the FUSE device and commands on
// STATE/socket:
//
//	snapshot.Open     the index's lock says whose the state is; snapshots that were pending are failed
//	backing.Open      the directory, by the descriptor that the holder opened before mounting
//	cow.Open          dirty maps; in a takeover, what the dead server left in files
//	SetBase, SetLive  reads of the newest snapshot may come from the live files
//	front             fs.Server with browse.FS, given to the session
//	listen            last: who gets an answer from the socket gets it from a whole volume
//
// It closes them in the opposite order: pending snapshots are sealed first, or dropped when a bound passes; the dirty map goes
// into the index only if the mount is gone, since otherwise another server takes over.
//
// Upgrade has the holder start another program's server. It looks at the program first, and then waits for what a restart would cost
// while requests are still served: from the moment on at which this server reads no further ones, the database waits.
//
// graphvol mount-store (MountStore) starts one process (ServeStore), which opens a copy, makes or updates an index of it in a cache directory, and mounts. Commands
// reach it over the socket there, as the mount's source is that directory; the service refuses what isn't reading.
//
// # Service
//
// The gRPC service of package agent/api is the only way in. While a volume isn't mounted, Connect runs the same service in the
// command's own process, over the same repository, without the live volume; what needs that one is refused with
// what to do. Errors leave the service translated (statusOf): a code, and a sentence for people. What has no translation
// becomes Internal and goes to the log in full.
//
// # Snapshots
//
// (*service).Snapshot describes the steps and their bounds. Seals run one at a time in the order of barriers, because each
// snapshot is the next one's parent; meanwhile further barriers may pass, as many as there are slots.
//
// # Lock order
//
//	service.order    from a barrier until its snapshot is in the queue
//	  sealQueue.mu
//	    job.mu
//	service.mu       leaf
//	meter.mu         leaf, held while a message is sent
//
// No lock is held while a snapshot is sealed, and none while the kernel is told of new names.
package agent
