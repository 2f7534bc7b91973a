package backing

import (
	"os"

	"golang.org/x/sys/unix"
)

// keepOpen stashes an inode that is open and about to lose its last known name, before it does: from then on the name can't
// lead the next process to it. undo is to be called if the name stayed.
func (t *Tree) keepOpen(v *victim) (undo func()) {
	undo = func() {}
	n := t.nodes.get(v.before.Ino)
	if n == nil || t.stash == nil {
		return undo
	}
	n.mu.Lock()
	need := len(n.links) <= 1 && n.rec.readers+n.rec.writers > 0 && !n.kept
	n.mu.Unlock()
	if !need || !t.stashNode(n, v.fd) {
		return undo
	}
	return func() { t.unstash(n) }
}

// stashNode gives a duplicate of fd to the stash as n's. A failure is logged: the file works as long as this process does.
func (t *Tree) stashNode(n *node, fd int) bool {
	if t.stash == nil {
		return false
	}
	n.mu.Lock()
	kept := n.kept
	n.kept = true
	n.mu.Unlock()
	if kept {
		return true
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err == nil {
		f := os.NewFile(uintptr(dup), "stashed")
		err = t.stash.Stash(n.ino, f)
		f.Close()
	}
	if err != nil {
		t.log.Warn("an open file without a name won't survive a restart of the server", "ino", n.ino, "err", err)
		n.mu.Lock()
		n.kept = false
		n.mu.Unlock()
	}
	return err == nil
}

func (t *Tree) unstash(n *node) {
	n.mu.Lock()
	kept := n.kept
	n.kept = false
	n.mu.Unlock()
	if kept {
		t.stash.Unstash(n.ino)
	}
}

// adoptStashed pins the nodes whose descriptors an earlier process left.
func (t *Tree) adoptStashed(files map[uint64]*os.File) {
	for ino, f := range files {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		f.Close()
		n := t.nodes.get(ino)
		if err != nil || n == nil {
			if err == nil {
				unix.Close(fd)
			}
			if t.stash != nil {
				t.stash.Unstash(ino)
			}
			continue
		}
		st, err := t.statx(fd, "")
		if err != nil || st.Ino != ino {
			unix.Close(fd)
			continue
		}
		n.mu.Lock()
		if n.pin == nil {
			n.pin, fd = newHandle(n, kindPath, fd), -1
		}
		n.kept = true
		n.mu.Unlock()
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
