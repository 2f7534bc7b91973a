// Package epoch keeps what changed in one epoch: which blocks, names and attributes of which inodes.
//
// The marks of the running epoch are shared mappings of two files, STATE/epochs/N.bits and N.names. Marking is a
// store to memory, yet the marks survive the death of the process: the kernel has them. They don't survive a power cut
// unless Sync was called; what protects against those are the intents of package index.
//
// A mark says: the first change in this epoch was seen, and a preimage saved if anybody needed it. So a marked block can be
// changed again without further ado, which Blocks tells. The marks of a snapshot that failed are therefore never copied into a later epoch:
// whoever seals next looks at both epochs.
//
// # Format, version 1
//
// Both files grow in segments: one of 64 KiB, then as much as there is already, until 4 MiB, then 4 MiB each. A segment is
// allocated on disk before it is mapped, since storing to a hole of a mapped file on a full disk would kill the process. A record never
// crosses the end of a segment; the rest of the segment is zero then. Integers are in the byte order of the machine
// (little endian on all that Go's Linux ports are common on); the files never leave it.
//
// A record's first 4 bytes tell its kind and are stored last. So a record whose kind isn't 0 is whole, if it wasn't the machine
// that failed. Sums are checksums, defined by func sum, of the fields that identify a record and never change. Marks, which are set by single
// atomic operations, have running ones, to which each new bit adds its weight (see bitsWeight and headWeight); the header
// says whether a file has them. Where one doesn't match, what the record is about counts as dirty. Never changed:
// the first 12 bytes.
//
//	header of both files, 96 bytes
//	   0   8  magic "GVEPOCH\n"
//	   8   4  format version, 1
//	  12   4  sum of magic, version, epoch, file
//	  16   8  epoch
//	  24   4  file: 1 bits, 2 names
//	  28   4  flags: 1: marks were made that are not in the files; 2: the records have checksums of their marks
//
// The bits file is an array of 96-byte cells, of which a record takes one, or, a slot, three:
//
//	inode, kind 0x47560001                     slot, kind 0x47560002: bits of 2048 blocks
//	   4   4  sum of kind and ino                 4   4  sum of kind, ino and slot
//	   8   8  ino                                 8   8  ino
//	  16   8  gen                                16   8  slot: number of the first block / 2048
//	  24   4  flags, as in index.Dirty           32 256  bits; slot 0 doesn't use its first 64
//	  28   4  sum of the ident, 0: none          24   4  weight of the bits
//	  32   8  bits of blocks 0 to 63           run, kind 0x47560003: all blocks of some slots are marked
//	  40   8  hint: offset in names               4   4  sum of kind, ino, first and n
//	  48   8  ident: gen                          8   8  ino
//	  56   8  ident: size                        16   8  first slot
//	  64  16  ident: ctime, btime, seconds       24   8  n, number of slots
//	  80   8  ident: ctime, btime, nanoseconds
//	  88   8  weights of bits; of flags and gen
//
// Small files need nothing but the inode's record; a file's first block
// beyond 256 KiB costs a slot for its 8 MiB, and a mark of 16 MiB or more at once costs one run.
//
// The names file is a sequence of records that begin at multiples of 8:
//
//	 0   2  length of the name                  2   2  kind: 0xa501 name, 0xa502 hint;
//	                                            0xa500 unfinished: stored before the rest
//	 4   4  sum of all but this                 8   8  ino
//	16   8  parent, of a hint                  24   n  the name
//
// Of several hints of an inode the last one counts; there are several only where the process died while it replaced one. The record of the
// replaced one becomes unfinished, and may be used again for a name of about the same length.
//
// # Locks
//
//	shard.mu
//	  arena.mu
//	Inode.mu
//	  arena.mu
//	    mappings.mu
//
// Blocks, MarkBlocks and the Has methods for flags take no lock once the records are there.
package epoch
