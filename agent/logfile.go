package agent

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"graphvol/agent/traceid"
)

const (
	agentLogName   = "agent.log"
	holderLogName  = "holder.log"
	offlineLogName = "offline.log"
	logMaxBytes    = 8 << 20
	logKeep        = 4 // agent.log.1 is the newest of the old ones
)

// LogFile is an append-only log of bounded size: when a line would make it longer than its bound, agent.log becomes
// agent.log.1, agent.log.1 becomes agent.log.2 and so on; the oldest is removed. Lines are never split. A write error
// (a full or broken disk) never reaches the caller, since a volume must work on without its log: such lines go to the
// fallback writer.
type LogFile struct {
	path     string
	max      int64
	keep     int
	fallback io.Writer

	mu struct {
		sync.Mutex
		f    *os.File
		size int64
	}
}

var _ io.WriteCloser = (*LogFile)(nil)

// OpenLog opens STATE/log/NAME, making the directory if it is missing. Lines that can't be written there go to
// fallback.
func OpenLog(state, name string, fallback io.Writer) (*LogFile, error) {
	return openLog(filepath.Join(state, "log", name), logMaxBytes, logKeep, fallback)
}

func openLog(path string, maxBytes int64, keep int, fallback io.Writer) (*LogFile, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make log directory: %w", err)
	}
	l := &LogFile{path: path, max: maxBytes, keep: keep, fallback: fallback}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.openLocked(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *LogFile) openLocked() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open log: %w", err), f.Close())
	}
	l.mu.f, l.mu.size = f, st.Size()
	return nil
}

// Write appends one line. It always reports success.
func (l *LogFile) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.f != nil && l.mu.size > 0 && l.mu.size+int64(len(line)) > l.max {
		l.rotateLocked()
	}
	if l.mu.f == nil {
		l.fallback.Write(line)
		return len(line), nil
	}
	n, err := l.mu.f.Write(line)
	l.mu.size += int64(n)
	if err != nil {
		l.fallback.Write(line)
	}
	return len(line), nil
}

// rotateLocked moves the files on. Where that fails (the disk is read-only now) the present file just grows on.
func (l *LogFile) rotateLocked() {
	for i := l.keep; i > 1; i-- {
		os.Rename(fmt.Sprintf("%s.%d", l.path, i-1), fmt.Sprintf("%s.%d", l.path, i))
	}
	if err := os.Rename(l.path, l.path+".1"); err != nil {
		return
	}
	old := l.mu.f
	if err := l.openLocked(); err != nil {
		fmt.Fprintln(l.fallback, err)
		return
	}
	old.Close()
}

// Close closes the file; later lines go to the fallback writer.
func (l *LogFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.f == nil {
		return nil
	}
	err := l.mu.f.Close()
	l.mu.f = nil
	return err
}

// NewLogger makes the logger that all parts of an agent share: one JSON object a line, with the ids of the trace that its context belongs to.
func NewLogger(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(traceid.LogHandler(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})))
}
