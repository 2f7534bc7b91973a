package cow

import (
	"encoding/json"
	"os"
	"sync"
)

// journal remembers the one request in flight that would do harm if it ran twice: a shift of a file's content, or an
// exchange of two names. Its file is written before the act and emptied after it, so that the server that takes over
// can tell whether the act that the kernel sends again has been done. It need not survive more than the process.
type journal struct {
	mu   sync.Mutex // held from begin to end: such requests run one at a time
	file *os.File   // nil if it could not be made: then nothing is remembered
	left *entry     // what the server before this one left
}

type op string

const (
	opShift    op = "shift"
	opExchange op = "exchange"
)

// entry is one request, and what it found.
type entry struct {
	Op         op
	A, B       uint64 // inodes
	DirA, DirB uint64
	NameA      string
	NameB      string
	Mode       uint32
	Off, N     int64
	Size       int64 // before
}

// same tells whether two entries are the same request.
func (e entry) same(x entry) bool {
	if e.Op == opExchange {
		e.A, e.B, x.A, x.B = 0, 0, 0, 0
	}
	e.Size, x.Size = 0, 0
	return e == x
}

func openJournal(path string, takeover bool) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return &journal{}, err
	}
	j := &journal{file: f}
	var e entry
	if takeover && json.NewDecoder(f).Decode(&e) == nil {
		j.left = &e
	}
	return j, nil
}

// begin waits for its turn and remembers e. done: the request was sent again and has been done before; else end is to be
// called after the act. check completes e with what is there now, and tells whether the old entry's act was done.
func (j *journal) begin(c Caller, e entry, check func(e *entry, old *entry) bool) (done bool, end func()) {
	j.mu.Lock()
	var old *entry
	if c.Resent && j.left != nil && j.left.same(e) {
		old, j.left = j.left, nil
	}
	if check(&e, old) {
		j.mu.Unlock()
		return true, nil
	}
	if j.file != nil {
		if p, err := json.Marshal(e); err == nil {
			j.file.Truncate(0)
			j.file.WriteAt(p, 0)
		}
	}
	return false, func() {
		if j.file != nil {
			j.file.Truncate(0)
		}
		j.mu.Unlock()
	}
}

func (j *journal) close() {
	if j.file != nil {
		j.file.Close()
	}
}

// shiftDone: collapsing and inserting change a file's size, which tells whether that happened.
func (v *Volume) shiftDone(e, old *entry) bool {
	a, err := v.tree.Stat(e.A)
	if err != nil {
		return false
	}
	e.Size = a.Size
	return old != nil && old.Size != a.Size
}

// exchangeDone: afterwards each name means the other's inode.
func (v *Volume) exchangeDone(e, old *entry) bool {
	return old != nil && old.A == e.B && old.B == e.A
}
