package erasure

import "bytes"

// IsPart tells whether the content of an object on a single target begins as what this package writes.
func IsPart(p []byte) bool { return bytes.HasPrefix(p, []byte(magic)) }
