// Package crypt encrypts the objects of a target, and keeps the keys for it.
//
// Who can read and write the target, but has no key, learns names, lengths and times, and can make nothing that is accepted; docs/security.md
// says what that is worth. An object that was cut, extended, put together anew, stored under another name or encrypted
// with another key is refused with ErrAltered. What can't be noticed here is an older object under its own name, and one that is missing: heads list what
// there is, see package remote.
//
// # Terms
//
// A store id names what is encrypted. A repository key is 32 random bytes; a keyring is a store's repository keys by number, from 1. New objects are
// encrypted with the newest. A keyring is wrapped (encrypted with age) once for each key that opens it: these are in keys/NAME.age on the target.
//
// # Encrypted objects, version 1
//
// All numbers are little endian but in nonces.
//
//	header   64 bytes
//	   0   8  magic "GVCRYPT" and a zero byte
//	   8   4  format version, 1
//	  12   4  number of the repository key, from 1
//	  16  32  salt, random
//	  48  16  zero
//	segments, each
//	   0   n  65,536 bytes of the object, encrypted; the last segment has the rest, which is empty only if the object is
//	   n  16  tag
//
// An object of n bytes takes 64 + n + 16·max(1, ⌈n/65,536⌉). Segments are encrypted with AES-256-GCM. The key is
//
//	HKDF-SHA-256(secret: repository key, salt: salt, info: "graphvol object 1", a zero byte, the object's name), 32 bytes
//
// the nonce is the segment's number from 0 (11 bytes, big endian) and a byte that is 1 in the last segment, else 0; the additional data is the header, all 64 bytes.
// This is the STREAM construction as age uses it (Hoang, Reyhanitabar, Rogaway, Vizár 2015; age-encryption.org/v1).
//
// Never changed: the header's first 12 bytes. Software that finds a version it doesn't know refuses the object with ErrNewerFormat before it looks at
// anything else in it.
//
// Each Put has a salt of its own, so no two objects share a key. A nonce must not be used for two plaintexts: a source that gives other
// bytes when it is read again ends the Put with an error before they are given away.
//
// # What is not encrypted
//
// store.json and all names that begin with keys/ pass as they are: the first is read before there is a key, the others are encrypted already. They are
// not authenticated by this package.
//
// # Wrapped keyrings, version 1
//
// keys/NAME.age is an age file (binary, no armor) of one JSON object without unknown fields:
//
//	{"format_version": 1, "store": ID, "keys": [{"number": 1, "key": BASE64, "created": TIME}]}
//
// keys has at least one, ascending by number; BASE64 is standard, of 32 bytes; ID is 16 to 32 lower-case hexadecimal digits. An age file has either X25519 recipients, one or more, or a
// passphrase (scrypt, work factor at most 20), which is always alone.
//
// # Pins
//
// age encrypts to public keys: anyone who knows one can wrap a keyring of his own for it. So what opens a keyring with an X25519 identity must know whether it is the
// right one. A pin is a store id, the number of a repository key and the commitment to it:
//
//	the first 16 bytes of SHA-256("graphvol commit", repository key)
//
// A keyring is accepted if it is of that store and has that key. Only who knows that key can have made it, so
// the other keys in it are right too, also newer ones.
//
// # Key files, version 1
//
// STATE/keys/REMOTE.key (mode 0600) is an identity with its pin. It is also an identity file for age's own program:
//
//	# graphvol key file 1
//	# store ID
//	# commitment NUMBER HEX
//	# public key AGE1…
//	AGE-SECRET-KEY-1…
//
// The last two lines may be a passphrase instead, which age's program doesn't know:
//
//	# passphrase
//	PASSPHRASE …
//
// # Recovery text, version 1
//
// The same for paper: lines LABEL: GROUPS CHECK. See [KeyFile.Recovery].
package crypt
