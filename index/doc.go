// Package index keeps what graphvol knows about a volume beside its data: the catalogue of snapshots, where chunks are
// stored, and what is dirty. It is one bbolt database and, beside it, one file of intents.
//
// # Durability order
//
//  1. Packs must be durable, then the manifest, before Complete is called: Complete makes the catalogue say so.
//  2. Complete may write rows of chunks in transactions of their own. The last one, and only that, changes the
//     snapshot to "complete". Its dirty map stays, until the backing's disk has what the snapshot has. A crash before leaves it pending; the
//     rows that are there already are true, since their packs are durable, and needed by nobody until a later snapshot has the
//     same chunk. Pruning removes them.
//  3. Packs are removed only after Relocate has returned, which refuses to forget a pack that has chunks.
//  4. The intent of a change must be durable before the change can reach the disk: AddIntents returns after the sync.
//
// # Format, version 1
//
// Never changed: the bucket "format" with the key "version", whose first 4 bytes are the version. Software that finds a version it doesn't know
// refuses the index with ErrNewerFormat before it reads anything else. Keys are big endian, so that they sort; fixed
// numbers in values are little endian unless noted; uvarint and varint are those of encoding/binary.
//
//	format     "version" → version, and the CRC-32C of it, 4 bytes each, big endian; the first indexes have no checksum
//	meta       any key → any value. "index.sealed" → epoch (8): the greatest that a complete snapshot had ended when one was
//	           removed from the catalogue. "index.facts" → CRC-32C (4) of all other facts, ascending: length of the key (4), length
//	           of the value (4), key, value; missing in an index of an earlier version
//	snapshots  seq (8) → record of JSON. The bucket's sequence is the last seq that was given.
//	epochs     epoch (8) → bucket: ino (8) → record of a Dirty
//	packs      number (4) → pack id (16), number of its chunks in this index (8, big endian). The bucket's sequence is the
//	           last number that was given; numbers are used once.
//	chunks     chunk id (32) → uvarints: pack's number, offset and length of the record, length of the chunk
//	remotes    remote's name, 0, object's name → version (1), uvarint flags: 1 degraded, 2 doomed; uvarint size; if doomed, varint Unix time;
//	           CRC-32C of the key and all before. Without an object's name: version, the remote's record, CRC-32C likewise. The bucket is
//	           missing until there is a remote.
//
// A record is its version (1 byte, 1), a payload, and the CRC-32C of both (4 bytes). The payload of a Dirty is
//
//	uvarint gen
//	uvarint flags: 1 attributes, 2 content, 4 all names, 8 fresh, 16 removed
//	uvarint parent, string name        the hint
//	0, or 1 and the ident: uvarint gen, varint size, varint and uvarint ctime (s, ns), varint and uvarint btime
//	uvarint n, n strings               names
//	the rest, if any: dirty blocks as a roaring bitmap in its portable format
//
// where a string is its length as uvarint and its bytes.
//
// # Intents, version 1
//
// They aren't in the database since bbolt has one writer at a time: the first write to a region after a barrier would wait for
// the dirty map, or for a batch of chunks, to be stored. The file (index.intents for index.db) is an array of 512-byte frames,
// all integers little endian. The first is the header, the others are free or hold intents of one epoch:
//
//	header  0   4  CRC-32C of the other 508 bytes      frame   0    4  CRC-32C of the other 508 bytes
//	        4   8  magic "GVINTNT\n"                           4    2  number of intents, at most 20
//	       12   4  version, 1                                  8    8  epoch; 0: free; 2^64-1: concerns any
//	                                                          16   24  each: ino (8), gen (8), region (4), kind (1), zero (3)
//
// A frame in use is never written again. One that doesn't match its checksum is a write that a power cut tore: nobody was told that
// it succeeded, so it is free. The file grows by written zeros, so that a sync need not touch the filesystem's
// metadata. If it is missing or its header is damaged while the database is there, everything may have been announced.
//
// # Failed writes
//
// A sync that failed is never repeated as if it had not happened: the kernel reports a lost write once, keeps the page as if
// it were clean, and the next sync succeeds. Of what a failed one should have stored, everything is written anew or given up.
//
//   - bbolt syncs a transaction's pages, then the meta page that makes them the newest state, then that. If the first sync fails,
//     nothing refers to the pages, which are free. If the second fails, the transaction is visible in the cache, and perhaps not on
//     the disk; the next one would overwrite pages which the state on the disk still needs. So after any error of a commit the two meta
//     pages are written as they were before, and synced, and bbolt is opened anew, since what it has in memory may come from what has
//     failed: some filesystems show for a while even what they could not write. So an update that returned an error has had no effect.
//   - As long as that fails, reading goes on and no write transaction begins: each tries it first. A snapshot that fails meanwhile is
//     remembered, and listed as failed.
//   - A process may die between the two syncs, or after a failed one. Therefore each writes the meta pages as it finds them once more, synced, before
//     its first transaction.
//   - Intents of a failed sync don't count as announced; if they are announced again, that goes into other frames. (Package cow doesn't: it
//     notes that after a power cut everything has changed.)
//
// # Locks
//
//	DB.write                one write transaction, or Check
//	  DB.using              shared for reading, exclusive while bbolt is opened anew
//	    bbolt's own
//	      packTable.mu
//	  DB.owed.mu
//	intentLog.mu            not held while syncing
package index
