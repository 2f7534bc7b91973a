// Package faults has a filesystem whose calls fail when a test wants them to, and the tests that put graphvol's state directory on it, or on
// small real disks that become full or read-only.
//
// # The filesystem
//
// A Disk shows a directory through FUSE, and every call of the programs that use it passes one function. So nothing is left out that an
// interface in Go would not see: bbolt's own writes, and the stores through shared mappings that the dirty map is made of, which come as writes when the
// kernel brings them, and as reads when a page is touched first. The server runs in the test's process; no file below a Disk's Dir may therefore be mapped or
// kept open there. What the test wants to see of a Disk's files it finds in Real, the directory behind it.
//
// # A failed fsync
//
// Linux reports the failure of a writeback once, to the next fsync. It doesn't keep the data dirty: the pages stay in the cache, readable, and the
// next fsync succeeds without writing them. A Disk that tracks does the same. For each file it knows the durable content: what was
// written before the last successful fsync, without anything that a failed one should have brought. CutPower leaves that, and no more.
package faults
