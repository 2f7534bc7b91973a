// Package liveness judges whether the other agents of a cluster are there. It knows neither etcd nor gRPC: it is told what probes have found and how leases
// are, and asks through a small interface.
//
// # Probes
//
// Every 5 s ± 2 s an agent probes its two neighbours on a ring (all names in the order of their hashes) and two others, in turn, so that it comes round to all. A ring stays connected without any
// one of its agents: between any two there are always two paths that share no third. A call may take 2 s. One that fails is repeated with
// exponential back-off until it succeeds, and each time three peers are asked to try in its place (the indirect probes of SWIM: Das, Gupta, Motivala, "SWIM: Scalable
// Weakly-consistent Infection-style Process Group Membership Protocol", DSN 2002).
//
// # States
//
//   - alive: this node reaches it, or others do and this node hasn't failed to.
//   - suspect: this node doesn't reach it, and not yet for long enough, or the peers haven't answered yet.
//   - unreachable: this node hasn't reached it for longer than is allowed, but it lives: a peer reaches it, it was heard of, or it renews its lease.
//   - dead: nobody reaches it, it was not heard of, and its lease isn't held. At least one peer that lives has tried too, unless there is none left. While nothing is known of the
//     lease, most of the cluster must have tried: so the smaller part of a cut cluster calls nobody dead.
//
// # How long is allowed
//
// 15 s, or more for an agent that has been silent before and came back: the mean of the gaps between its signs of life plus 5.6 standard deviations, 60 s at the most.
// If gaps are normally distributed, a longer one has a probability of 1e-8, which is a phi of 8 (Hayashibara, Défago, Yared, Katayama, "The φ Accrual Failure Detector", SRDS 2004).
// Silence counts only where somebody tried to break it: an agent that nobody has asked isn't silent.
//
// # Locks
//
// Table.mu is the only one; it is never held across a call.
package liveness
