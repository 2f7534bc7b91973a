// Package model applies seeded random operations to a directory and to a tree in memory, and compares the two.
//
// Each worker owns a subtree and knows what every one of its system calls must do, errors included; names move between
// subtrees only while all workers rest. So the tree in memory (Tree) is right whatever order the workers ran in, and a
// copy of it, taken while they rest, is what a snapshot taken at that moment must show.
//
// The measure of right is ext4: run on a plain ext4 directory, with `cp -a` for a snapshot, no difference is found.
//
// What is compared: names, types, modes, owners, link counts, sizes, device numbers, symlink targets, modification
// times to the nanosecond, extended attributes and ACLs, which names share an inode, content, and holes. A block (4 KiB)
// is in one of three states: a hole (must be one), data (must not be one), or either (preallocated, zeroed, copied).
package model
