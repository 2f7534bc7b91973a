package hold

import (
	"errors"
	"os"
	"reflect"
	"sync"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

var errNoPool = errors.New("this version of go-fuse keeps its read buffers elsewhere: a server that is killed while it reads a request may lose it (EIO)")

// keepResident makes go-fuse's read buffers touch all their memory when they are made.
//
// The kernel copies a request straight into the reader's buffer. If the process is being killed at that moment and a page of the buffer has never been touched,
// the page can't be faulted in any more, the copy fails, and the kernel ends the request with EIO instead of keeping it for the next server: of 100 kills
// under a busy writer, about one hit a write that way. A page that is there is copied to without a fault, killed or not.
//
// There is no option for it, so the pool's constructor is wrapped, between NewServer and Serve, while nobody else uses it.
func keepResident(srv *fuse.Server) error {
	v := reflect.ValueOf(srv).Elem().FieldByName("readPool")
	if !v.IsValid() || v.Type() != reflect.TypeFor[sync.Pool]() {
		return errNoPool
	}
	pool := (*sync.Pool)(unsafe.Pointer(v.UnsafeAddr()))
	if pool.New == nil {
		return errNoPool
	}
	if _, ok := pool.New().([]byte); !ok {
		return errNoPool
	}
	// The buffer that INIT was read into came from the constructor as it was: dropped.
	pool.Get()
	made := pool.New
	pool.New = func() any {
		buf := made().([]byte)
		touch(buf[:cap(buf)])
		return buf
	}
	return nil
}

// touch writes to every page.
func touch(buf []byte) {
	for i := 0; i < len(buf); i += os.Getpagesize() {
		buf[i] = 0
	}
	if len(buf) > 0 {
		buf[len(buf)-1] = 0
	}
}
