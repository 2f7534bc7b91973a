// Package cow makes a directory a volume: it knows what changed since the newest complete snapshot, and keeps what ended
// epochs looked like until they are sealed. It knows no FUSE.
//
// # A change
//
// A modifying request enters the gate, marks what it changes in the running epoch, saves what an unsealed snapshot needs of it,
// acts on the backing, and leaves the gate. Marks come before the change, so that
//
//	changed since the barrier  ⊆  marked in the running epoch        (I1)
//
// and a preimage comes before its mark, both under the inode's lock, so that who finds a block marked may overwrite it:
//
//	marked and needed by an unsealed snapshot  ⇒  preimage saved     (I2)
//
// The common case, a write to blocks that are marked already, takes no lock but that of a map for reading.
//
// If a preimage can't be saved, the snapshots that need it are lost, not the request (I5).
//
// # Epochs and snapshots
//
// Epoch n runs until a barrier ends it; its snapshot is what the volume held then. At a barrier only pointers change: the
// new epoch's files are made before the gate closes. An ended epoch is unsealed until it is released: sealed, its marks are
// forgotten; lost, they become part of the next unsealed epoch's, or wait (are carried) for the one that is running. When many are carried
// they become one, the last, as if the barriers between them had not been.
//
// Preimages are labelled with the epoch that had ended last when they were saved; so epoch n saves under label n-1. The
// snapshot of epoch k sees of anything
//
//	the first preimage with a label >= k, else what is live
//
// because k needs what is dirty in k (or in older unsealed epochs), and the first change after k's barrier has saved it. A read
// looks for preimages, reads live, and looks again: without a preimage then, nothing had changed before the read.
// What k doesn't need may have changed without a preimage; asking for it fails with ErrSuperseded.
//
// An inode whose last name goes is held open, or copied, for the snapshots that need it. When its number is used
// again, labels and generations tell the two inodes apart. Reads take it for gone from just before the backing is asked to remove it, changes
// only from just after, for the backing may refuse. A directory that isn't empty is gone to nobody before.
//
// # Durability
//
// The running epoch's marks are in shared mappings of STATE/epochs and survive the process. After a barrier, and at unmount, they
// go into the index. A power cut may lose the last pages of a mapping; therefore the first change in an epoch of a
// 64 MiB region of a file, of a directory's names or of an inode's attributes is announced durably (an intent) before the
// gate is entered. Single intents of attributes and of directories become one for all after 64. Inodes made in the epoch
// need none: their directory has one, and the newest snapshot doesn't know them. If the state's disk is dead, files
// are announced by their own change times. STATE/markers says durably
// which epochs have begun and aren't in the index yet, and whether intents could be recorded in them.
//
// A snapshot may hold what the backing's disk doesn't have yet. So the dirty map of a sealed epoch stays in the index until the backing's
// filesystem has been synced; see settle.go.
//
// After any mount but a takeover, a scan compares all inodes with what was recorded of them: by the newest dirty map
// that has them, else by the newest complete snapshot. Change times are compared for difference, never for order.
// Attributes and names need intents only where the kernel's change times are too coarse to differ (before Linux 6.13); other
// names of a hard link that lost one rely on the change time alone.
//
// # Lock order
//
//	barrier semaphore (Volume.barrier)
//	    gate, shared by requests
//	        names of directories, ascending inode numbers
//	            names of other inodes, ascending inode numbers
//	                journal
//	                marks of one inode (inodeState.mu)
//	                    scanner.mu
//	                    epoch
//	                    Volume.mu
//	                    preimage tables, one at a time
//	                    backing
//	                    index
//	Ended.done, Ended.places, holds: alone
package cow
