// Package hook runs a volume's commands around the pause of a snapshot: those before it (pre) bring the database to rest, those after it (post) let it go on.
//
// What matters is that no database stays at rest:
//
//   - Every command has a time-out. After it, its process group gets SIGTERM, and after a short grace SIGKILL. One that even that doesn't end, since the kernel keeps it, is left behind.
//   - The first pre hook that fails is the last one that is run.
//   - As soon as one pre hook has begun, all post hooks are run, in order, each whatever has become of the others, of the snapshot, and of the context of the caller.
//   - That they have to be run is remembered on disk before the first pre hook begins. If the agent dies before they are done, Recover runs them at its next start. A pre hook that has outlived the agent is
//     ended first, as it could bring the database to rest after all; what it has given a session of its own (setsid) is left alone.
//
// Post hooks may therefore be run twice, and without a pre hook that was successful. A snapshot whose hooks can't be remembered (the disk is full) fails before any of them is run.
//
// Commands are run without a shell, with /dev/null as input, in /, as leaders of a process group of their own, with the agent's environment and
//
//	GRAPHVOL_VOLUME    the volume's name
//	GRAPHVOL_MOUNT     its mount point
//	GRAPHVOL_SNAPSHOT  the snapshot's name
//	GRAPHVOL_PHASE     pre or post
//	GRAPHVOL_RESULT    for post: taken, failed, or unknown (the agent died)
//
// Children that a command leaves behind are waited for by nobody. What they print is read by nobody either: they should have put their output elsewhere.
package hook
