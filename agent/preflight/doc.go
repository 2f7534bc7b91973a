// Package preflight looks at what a backup needs before it begins: paths, commands, FUSE, disk space, memory, the clock. Each thing is a row of package check; one that
// isn't as it must be has the command that mends it.
//
// All is asked of the kernel as this process's user, so capabilities, access lists, read-only mounts, noexec and immutable files are taken into account; nothing is written.
// A path that doesn't answer (a network filesystem whose server is gone, a mount whose server hangs) is a row too, and keeps the others from nothing.
//
// Buckets are looked at by graphvol target check; database roles by package pgroles.
package preflight
