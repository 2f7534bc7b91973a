// Package snapshot stores ended epochs as snapshots and reads them back.
//
// It knows neither FUSE nor how a volume works: a Source gives what changed and what it was as of a barrier, a Live gives bytes
// of the live volume that are provably those of a snapshot. Package tree has the format of what is stored.
//
// # Sealing
//
// Repo.Begin makes a snapshot pending; Repo.Seal makes it complete. Seals run one after another in the order of Begin, and
// a source is released before the next seal starts, so that the marks of a failed seal are part of the next. The caller has to see
// to that; what comes out of turn is refused.
// The order in which things become durable is the order of this list, and nothing refers to what is below it:
//
//  1. packs: data chunks and tree nodes
//  2. the manifest
//  3. one transaction of the index: chunk locations, fingerprints, the snapshot complete, dirty maps dropped
//
// A crash in between leaves a pending snapshot, which is dropped at the next mount, and packs or a manifest that
// nothing refers to, which pruning removes. A seal that fails before 3 removes its packs itself; one that fails in 3 leaves
// them, because the index may refer to them.
//
// A seal walks the changed inodes with a few goroutines; each hands the dirty segments of its file, in order, to a pool that
// reads, compares, hashes and stores them. A dirty block counts as changed only if its content differs: its CRC-32C
// against the index's fingerprint says "different" for sure, and what is equal is compared with the parent's content. The changed
// blocks of a segment become one chunk, and the segment's record refers to it and to older chunks. Where that would be more than
// tree.MaxSegmentChunks, the blocks of the small ones are stored again with the changed ones, in one chunk; and all blocks, once
// no chunk has half of them. (Always storing all of them costs twice as much over many snapshots.) What is in flight takes a few MiB, however
// large the volume is. Beside it a seal holds about 200 bytes for every inode that changed, 4 bytes for every block of the
// fingerprint pages that it touches (at most fingerprintLimit), and what chunkstore.Writer holds per chunk.
//
// # Reading
//
// A segment that is one chunk, and that the newest complete snapshot has too, is read from the live volume if that
// proves it unchanged; all else from the store: whole segments past the cache of decompressed chunks, parts of them through it. The SHA-256
// of a chunk is checked before its bytes are served, and of live bytes when the segment is first read; what was hashed a
// short while ago isn't hashed again (a record of the store keeps its CRC-32C, a live segment its marks). Files that are read in
// order, less than a segment at a time, are fetched and verified a little ahead.
//
// # Deleting, pruning, verifying
//
// Delete takes snapshots out of the catalogue, Prune removes what nothing needs any more, Verify says beforehand whether a
// snapshot can be read; the order of their steps is at the functions. What a snapshot refers to stays while it is in the
// catalogue, or pinned: by an open Reader, a Verify, or a seal that builds on it. So all of these may run at the same time.
//
// # Locks
//
// upkeep.pruning, which is held while Prune runs, comes first, then upkeep.deleting. Within the latter the index, the target and
// the leaves are used. turns.sealing is held while a seal runs, and by Close. All others are leaves, taken one at a time and held
// for memory operations only:
//
//	turns.mu, Repo.mu, sealer.mu, chunkCache.mu, verifiedSet.mu, fileCache.mu, readAhead.mu, tree.Nodes.mu
package snapshot
