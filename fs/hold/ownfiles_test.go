package hold

import (
	"errors"
	"os"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// The process's first thread keeps its table, however many others get one of their own.
func TestOwnFilesNeverOnTheFirstThread(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			err := WithOwnFiles(func() error {
				if unix.Gettid() == unix.Getpid() {
					t.Error("on the first thread")
				}
				var st unix.Stat_t
				if err := unix.Fstat(fd, &st); !errors.Is(err, unix.EBADF) {
					t.Error("the process's descriptor is there:", err)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); err != nil {
		t.Error("the first thread has lost the process's descriptors:", err)
	}
}
