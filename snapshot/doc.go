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
//  3. one transaction of the index: chunk locations, the snapshot complete
//
// A crash in between leaves a pending snapshot, which is dropped at the next mount, and packs or a manifest that
// nothing refers to, which pruning removes. A seal that fails before 3 removes its packs itself; one that fails in 3 leaves
// them, because the index may refer to them.
//
// A seal walks the changed inodes with a few goroutines; each hands the dirty segments of its file, in order, to a pool that
// reads, compares, hashes and stores them. A dirty block counts as changed only if its content differs: from its fingerprint
// (below), or else from the parent's content. The changed blocks of a segment become one chunk, and the segment's record
// refers to it and to older chunks. Where that would be more than tree.MaxSegmentChunks, the blocks of the small ones are stored again with the changed ones, in one chunk; and all blocks, once
// no chunk has half of them. (Always storing all of them costs twice as much over many snapshots.) What is in flight takes a few MiB, however
// large the volume is. Beside it a seal holds about 200 bytes for every inode that changed, and what chunkstore.Writer
// holds per chunk.
//
// # Fingerprints
//
// STATE/fingerprints/INO.crc32c has the CRC-32C of every block of the regular file with that inode number, if it has more than
// 1,024: 4 bytes, little endian, at 4 × the block's number. 0, a hole, or the end of the file stand for "unknown". There is no header: the
// suffix tells the format, and a file under any other name is removed by Prune. A seal reads and writes them in place, 8 KiB for 8 MiB,
// as it goes along a file; it never syncs or maps them, and has at most inodeWorkers of them open.
//
// They are hints, and nothing in them can make a snapshot wrong. A dirty block with another fingerprint is stored without a look at the
// parent's, which costs space if it was the same after all; one with an equal or unknown fingerprint is compared. So these
// need no care:
//
//   - A seal that fails leaves fingerprints of blocks that the parent doesn't have. The blocks are dirty still. One that is as the
//     fingerprint says is compared with the parent; one that has changed again is stored.
//   - A power cut may leave the fingerprints as they were half a minute before. What is dirty afterwards and was stored in that time
//     may be stored again.
//   - An inode number that is used again is a fresh inode, for which nothing that is there counts.
//   - An error of reading or writing (a full disk, say) is logged once for a seal, and the file's fingerprints are removed: its blocks
//     are compared with the store next time.
//
// A full seal starts with none. A file goes when a seal finds its inode gone or small; what is left over, Prune removes.
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
// # Rebuilding
//
// Everything in the index can be made anew of what is in the store, but for the dirty map: chunks' places are in the packs' own lists, or, where one
// is damaged, in the records themselves, snapshots in their manifests. Rebuild does that, beside the old index, of which it takes the
// catalogue if that can be read. Open never begins a new index beside a store that has something in it (ErrIndexLost): it would look as if there
// had never been a snapshot, and pruning would remove all data. Manifests of snapshots that the catalogue doesn't know and that
// weren't deleted (Lost) show that the index is an older copy of itself: what it calls changed is relative to another snapshot.
//
// Update does the same with an index that only reads, whose target another machine writes to: what came and went.
//
// # Locks
//
// upkeep.pruning, which is held while Prune runs, comes first, then upkeep.deleting. Within the latter the index, the target and
// the leaves are used. turns.sealing is held while a seal runs, and by Close. Within it a seal holds printDir.sealing, which Prune tries to
// take and never waits for. All others are leaves, taken one at a time and held for memory operations only:
//
//	turns.mu, Repo.mu, sealer.mu, chunkCache.mu, verifiedSet.mu, fileCache.mu, readAhead.mu, tree.Nodes.mu
package snapshot
