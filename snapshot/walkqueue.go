package snapshot

import "sync"

// walkQueue holds the inodes that a walk still has to visit. It ends when it is empty and no visit is running, for
// a visit may push more.
type walkQueue struct {
	mu      sync.Mutex
	cond    sync.Cond
	stack   []uint64
	running int
	stopped bool
}

func newWalkQueue() *walkQueue {
	q := &walkQueue{}
	q.cond.L = &q.mu
	return q
}

func (q *walkQueue) push(ino uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stack = append(q.stack, ino)
	q.cond.Signal()
}

// pop gives the next inode; false at the end. finished must follow.
func (q *walkQueue) pop() (uint64, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.stack) == 0 && q.running > 0 && !q.stopped {
		q.cond.Wait()
	}
	if q.stopped || len(q.stack) == 0 {
		return 0, false
	}
	ino := q.stack[len(q.stack)-1]
	q.stack = q.stack[:len(q.stack)-1]
	q.running++
	return ino, true
}

func (q *walkQueue) finished() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running--; q.running == 0 && len(q.stack) == 0 {
		q.cond.Broadcast()
	}
}

func (q *walkQueue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	q.cond.Broadcast()
}
