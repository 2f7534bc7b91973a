// Package chunkstore keeps content-addressed chunks in immutable packs on a target.
//
// A chunk is up to 1 MiB of bytes, named by its SHA-256. Chunks are stored as records in packs; where each record is
// (pack, offset, length) is the business of a Locator, which package index implements. Everything the locator
// knows can be rebuilt from the packs' trailers.
//
// # Durability order
//
//  1. A pack is written, then synced, then renamed to its name, then its directory is synced.
//  2. Only after that may Writer.Finish return, and only then may a manifest or an index entry refer to the pack's chunks.
//  3. A pack is removed only after the index that doesn't refer to it is durable.
//
// So a crash leaves at worst packs that nothing refers to. A pack is never changed.
//
// # Pack format, version 1
//
// All integers are little endian. A pack is header, records, trailer, footer, without gaps:
//
//	header   16 bytes
//	   0   8  magic "GVPACK\r\n"
//	   8   4  format version, 1
//	  12   4  zero
//	record   8 bytes and the stored bytes, one record a chunk
//	   0   4  CRC-32C of all that follows in this record
//	   4   3  number of stored bytes
//	   7   1  encoding: 0 the chunk as it is; 1 one zstd frame
//	   8   n  stored bytes
//	trailer  16 bytes, and 40 a chunk, in the order of the records
//	   0  16  random bytes, so that no two packs have the same name
//	  16  40  for each chunk: its id (32), length of its record (4), length of the chunk (4)
//	footer   64 bytes
//	   0   8  offset of the trailer
//	   8   4  number of chunks
//	  12   4  zero
//	  16  32  SHA-256 of the trailer
//	  48   4  zero
//	  52   4  CRC-32C of the header and the footer's first 52 bytes
//	  56   8  magic "GVPEND\r\n"
//
// A pack's id is the first 16 bytes of the SHA-256 of its trailer, its object name packs/XX/ID.pack, where XX
// are the id's first two digits. An offset of a record is 16 plus the lengths of the records before it.
//
// What covers what: the CRC finds every flipped bit of a record, also one that wouldn't change the chunk; the id, checked on
// every read, proves that the bytes are the chunk that was asked for; the footer's CRC covers header and footer,
// its SHA-256 and the pack's name the trailer.
//
// Never changed: the header's first 12 bytes. Software that finds a version it doesn't know refuses the pack with
// ErrNewerFormat before it looks at anything else in it.
//
// # Collecting garbage beside running writers
//
// A Writer counts as running from NewWriter to Close, and Close comes after the index has (or will never have) its
// chunks. All chunks that it has put or found stored are protected: whoever removes index entries does so within
// Store.Exclusive, asks there whether the chunk is protected, and keeps it if so. While Exclusive runs no writer
// can find a stored chunk, so what isn't protected then can't be relied upon later. Packs of running
// writers are known to Store.InUse, and must not be removed though nothing refers to them yet.
//
// # Healing
//
// A Store remembers which chunks it found damaged or missing. To a Writer they count as not stored: if the same content is
// put again, it gets a new place, and the index replaces the old one. A Writer relies on no pack that is missing, or whose header, end or list
// of chunks is damaged; of each that it meets it reads these once. Salvage copies the whole records of such a pack to a new one.
//
// # Locks
//
//	Store.gc (shared by Put, exclusive in Exclusive)
//	  Store.mu
//	  Writer.seen[i]
//	Writer.mu
//	packCache.mu
//	distrust
//
// The locator is called with Store.gc held and must not call back.
package chunkstore
