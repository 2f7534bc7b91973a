// Package databases runs real databases on a volume, snapshots them while they work, and opens what was snapshotted.
//
// It is a module of its own, so that graphvol's module does not depend on databases. Each test runs on a plain
// directory first (`cp -a` for a snapshot, the database at rest), which shows that the harness is right.
package databases
