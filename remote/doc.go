// Package remote keeps copies of a volume's store up to date elsewhere: in a directory, a bucket, or spread over several of them. docs/targets.md
// has the design: what is on a remote, the order of writes, and why that is enough.
//
// A Remote does one round at a time, each of which ends with the remote having all snapshots that were complete when it began, or with an error
// that says what is in the way. A Worker does rounds in the background whenever something has changed, and again after errors that may pass.
//
// A scrub reads everything of a remote, and mends what is wrong or notes it for the next round; a Worker does one now and then.
//
// # Concurrency
//
// A Remote does one scrub at a time, beside rounds: it holds the lock of a round only while it notes or mends something.
//
// Seals, reads and prunes of the local store go on beside a round; it takes no lock of theirs. What a prune takes away under it is noticed, and
// the round begins anew. Two processes don't do rounds for one state directory at the same time, since the index has one user; two state directories
// that write to one remote are told apart by the heads.
package remote
