package hook

import (
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

const (
	tailBytes  = 8 << 10
	lineBytes  = 200
	errorLines = 3
	logLines   = 20
)

// tail keeps the end of what a hook prints.
type tail struct {
	mu struct {
		sync.Mutex
		buf []byte // up to twice tailBytes
	}
}

// Write takes everything.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if n > tailBytes {
		p = p[n-tailBytes:]
	}
	t.mu.buf = append(t.mu.buf, p...)
	if over := len(t.mu.buf) - tailBytes; over > tailBytes {
		t.mu.buf = append(t.mu.buf[:0], t.mu.buf[over:]...)
	}
	return n, nil
}

// lines gives the last lines that aren't empty, without what would spoil a log or a terminal.
func (t *tail) lines(n int) []string {
	t.mu.Lock()
	text := string(t.mu.buf)
	t.mu.Unlock()
	var all []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, printable(line))
		}
	}
	return all[max(0, len(all)-n):]
}

func printable(line string) string {
	if len(line) > lineBytes {
		line = strings.ToValidUTF8(line[:lineBytes], "") + "…"
	}
	for _, r := range line {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			return strconv.Quote(line)
		}
	}
	return line
}
