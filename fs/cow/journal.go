package cow

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"sync"
)

// journal remembers the latest requests that would do harm if they ran twice: shifts of a file's content, exchanges of
// two names, and renames that leave a whiteout. A line of its file is written before the act and another after it; so the server
// that takes over can tell whether what the kernel sends again has been done, be it that the one before died in the
// act or before its answer had left. The file need not survive more than the process.
type journal struct {
	mu    sync.Mutex // held from begin to end: such requests run one at a time
	file  *os.File   // nil if it could not be made: then nothing is remembered
	size  int64
	lines [][]byte         // the latest, for when the file is written anew
	left  map[uint64]entry // what earlier servers of this mount left, by request
}

const (
	// journalKeep is more than the kernel has requests in flight.
	journalKeep = 1024
	journalMax  = 1 << 20
)

type op string

const (
	opShift    op = "shift"
	opExchange op = "exchange"
	opWhiteout op = "whiteout"
)

// entry is one request, and what it found.
type entry struct {
	Request uint64 // the kernel's number of it
	Op      op     `json:",omitempty"`
	A, B    uint64 `json:",omitempty"` // inodes: of the file, or at the old and the new name
	Size    int64  `json:",omitempty"` // of A
	Done    bool   `json:",omitempty"` // the act is over; the other fields are in an earlier line
}

// openJournal begins a journal, in a takeover with what the file holds.
func openJournal(path string, takeover bool) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return &journal{}, err
	}
	j := &journal{file: f, left: map[uint64]entry{}}
	if !takeover {
		return j, f.Truncate(0)
	}
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		var e entry
		if json.Unmarshal(sc.Bytes(), &e) != nil {
			continue // torn by the death of its writer: the act had not begun
		}
		j.keep(bytes.Clone(sc.Bytes()))
		if old, ok := j.left[e.Request]; ok && e.Done {
			old.Done = true
			e = old
		}
		j.left[e.Request] = e
	}
	// A torn line must not spoil the next one.
	return j, j.rewrite()
}

// begin waits for its turn and remembers e. done: the request was sent again and has been done before; else end is to be
// called after the act. check fills in what is there now, and tells whether what the old entry announced was done.
func (j *journal) begin(c Caller, e entry, check func(e, old *entry) bool) (done bool, end func(acted bool)) {
	j.mu.Lock()
	e.Request = c.Request
	var old *entry
	if x, ok := j.left[c.Request]; ok && c.Resent && x.Op == e.Op {
		old = &x
	}
	if check(&e, old) || old != nil && old.Done {
		j.mu.Unlock()
		return true, nil
	}
	j.write(e)
	return false, func(acted bool) {
		if acted {
			j.write(entry{Request: e.Request, Done: true})
		}
		j.mu.Unlock()
	}
}

// write adds a line. What can't be written is not remembered: that harms only if the server dies too.
func (j *journal) write(e entry) {
	p, err := json.Marshal(e)
	if j.file == nil || err != nil {
		return
	}
	p = append(p, '\n')
	j.keep(p)
	if j.size += int64(len(p)); j.size > journalMax {
		j.rewrite()
		return
	}
	j.file.Write(p)
}

func (j *journal) keep(line []byte) {
	if j.lines = append(j.lines, line); len(j.lines) > 2*journalKeep {
		j.lines = append([][]byte(nil), j.lines[journalKeep:]...)
	}
}

// rewrite leaves the latest lines in the file.
func (j *journal) rewrite() error {
	var all []byte
	for _, l := range j.lines[max(0, len(j.lines)-journalKeep):] {
		all = append(append(all, bytes.TrimSuffix(l, []byte("\n"))...), '\n')
	}
	if err := j.file.Truncate(0); err != nil {
		return err
	}
	j.size = int64(len(all))
	_, err := j.file.Write(all)
	return err
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
func exchangeDone(e, old *entry) bool { return old != nil && old.A == e.B && old.B == e.A }

// whiteoutDone: afterwards the new name means the inode that the old one meant.
func whiteoutDone(e, old *entry) bool { return old != nil && old.A == e.B }
