// Package clock tells how far this machine's clock is from what it should be, and says "paused" while that is more than a bound (500 ms).
// Nothing in graphvol's correctness rests on clocks; the times of snapshots, schedules and retention do.
//
// # What is measured
//
// An offset is how far this machine's clock is ahead of another one; behind, it is negative. Each reading has an error: the true offset is at most so
// far from it. There are three kinds of sources:
//
//   - NTP servers, if any are configured.
//   - Peers: the other nodes. The caller gives a function that exchanges times with one (RFC 5905, section 8); of several exchanges the one with the
//     shortest round trip counts, since half of that is its error. One that took longer than the bound tells nothing.
//   - The kernel: whether something keeps the clock synchronised (adjtimex), and how wrong it may be by that.
//
// # How it is judged
//
// NTP servers are asked first: who configures them says whom to believe. Else all clocks vote, this machine's own among them, and the middle one counts (the median):
// as long as most are right the middle is, whatever the others show. So one wrong peer pauses nobody but itself, and a wrong clock of this machine is outvoted.
// If there are as many on the one side as on the other, only those vote that are synchronised by their kernel's word. If that
// doesn't decide either, the clocks disagree, and all that see it pause: somebody is wrong, and nothing tells who. Without servers and peers the kernel's word counts. If nothing is
// known at all, nothing pauses, and the evidence says so.
//
// Above the bound it pauses, by the best estimate. It resumes when the offset is surely below nine tenths of the bound, error included, so it doesn't flutter around it; what isn't known
// changes nothing.
//
// All intervals are measured by the monotonic clock. When the wall clock is set, which shows as a difference between the two, a new measurement is made at once.
package clock
