package command

import (
	"bytes"
	"strings"
	"sync"
	"unicode"
)

// head keeps the beginning of what is written, and calls over when there is more.
type head struct {
	limit int
	over  func()

	mu   sync.Mutex
	buf  bytes.Buffer
	more bool
}

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.more = h.more || h.buf.Len()+len(p) > h.limit; h.more {
		h.over()
	} else {
		h.buf.Write(p)
	}
	return len(p), nil
}

// bytes is what was written, and whether that is all of it.
func (h *head) bytes() (p []byte, whole bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return bytes.Clone(h.buf.Bytes()), !h.more
}

// tail keeps the end of what is written.
type tail struct {
	limit int

	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	t.buf = append(t.buf[:0], t.buf[max(0, len(t.buf)-t.limit):]...)
	return len(p), nil
}

// said is the last line, as the end of an error; empty if nothing was said.
func (t *tail) said() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.TrimSpace(strings.ToValidUTF8(string(t.buf), "?"))
	last := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text[strings.LastIndexByte(text, '\n')+1:])
	if last == "" {
		return ""
	}
	return ": " + last
}
