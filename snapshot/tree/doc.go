// Package tree is the format of a snapshot: how inodes, directories and file contents become chunks.
//
// # Terms
//
// A map holds entries (key, name) → value, with a 64-bit key and a name that may be empty. Three things are maps:
//
//	inode table   key: inode number                         value: inode record
//	directory     key: first 8 bytes of SHA-256(name),      value: entry record
//	              big endian; name: the name
//	file content  key: number of the 128 KiB segment        value: segment record
//
// A map is a tree of nodes. A node is a chunk, or, if it is no longer than InlineMax, lies in the place that refers
// to it (a Ref). The same entries give the same nodes, byte for byte, in whatever order they were put in or removed;
// so snapshots share all that is equal, and comparing two maps skips it.
//
// # The shape of a map
//
// A key is eleven digits of 6 bits, digit 10 (4 bits) first. A set of entries is one leaf if all have the same key, or
// if they are at most MaxLeaf and the leaf's encoding has at most MaxLeafBytes. Else it is a branch at the highest digit in
// which its keys differ, with one child for each value that the digit has in the set. There are no branches with one child.
//
// # Bytes
//
// uvarint is the shortest form of encoding/binary's; svarint is its zigzag. Fixed numbers are little endian.
//
//	node      version 1 (byte), kind (byte): 1 leaf, 2 leaf with names, 3 branch
//	  leaf      uvarint n; n entries ascending by (key, name):
//	              uvarint key (the first) or difference to the one before; kind 2: uvarint length, name;
//	              uvarint length, value. Kind 2 if any name isn't empty.
//	  branch    level (byte) = the digit; uvarint prefix = key >> 6·(level+1) (0 for level 10);
//	            8 bytes bitmap of the digit's values; per value, ascending: ref of at least 1 entry
//	ref       uvarint count of entries; if not 0: uvarint length of the inlined node, and the node;
//	            length 0: 32 bytes id of the node's chunk
//
//	root      version 1 (byte), kind 4 (byte), uvarint root inode number, uvarint number of regular files, uvarint sum of
//	            their sizes in bytes, ref of the inode table
//	inode     uvarint mode, uid, gid, nlink, rdev; 8 bytes gen; uvarint size, uvarint data blocks;
//	            mtime, ctime, btime (svarint seconds, uvarint nanoseconds); uvarint length, link target;
//	            xattrs: uvarint 0: none; 1: xattr list follows; 2: uvarint length of the list, ids of the chunks that hold it,
//	              XattrChunk bytes each. A list longer than XattrInlineMax is form 2.
//	            ref of the content. The mode has one of Linux's seven types and no bits above it; a link target has at most 4095
//	            bytes, no NUL, and a symbolic link has one
//	xattr list  uvarint n; n × uvarint length, name, uvarint length, value; ascending by name. A name has 1 to 255 bytes without
//	            NUL, a value at most 64 KiB, and all names together at most 64 KiB with a byte behind each
//	entry     uvarint inode number, type (byte, DT_); a name has 1 to 4095 bytes, no NUL or slash, and isn't "." or ".."
//	segment   1 to 32 (byte n): blocks 0 to n-1 are the first n of one chunk, 32 bytes id; the rest is a hole
//	          or 64+x (byte): x extents; chunk count c (byte, 1 to MaxSegmentChunks), c ids in order of first use;
//	            x × 3 bytes: first block (5 bits, lowest), blocks-1 (5), chunk's index (3), first block in the chunk (5), 0
//	            Extents ascend, don't overlap and are merged where they can be. Blocks in no extent are holes.
//	            A segment without data has no record.
//
// A data chunk is a sequence of whole blocks. The last block of a file is padded with zeros; no data chunk is
// read beyond a file's size, and a snapshot whose file ends inside a block has zeros after the end in that block's chunk.
//
// The chunk of the root record is a snapshot's root; its id is the snapshot's checksum_sha256. Version 1 never changes; a
// decoder refuses a greater version with chunkstore.ErrNewerFormat and all else that isn't the one encoding with
// chunkstore.ErrCorrupt.
//
// # Concurrency
//
// Maps are immutable; all functions may be called from several goroutines. Nodes' cache has one lock, a leaf in every lock order.
package tree
