package erasure

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"graphvol/chunkstore/target"
)

// fake is a target in memory that can fail.
type fake struct {
	name string
	mu   struct {
		sync.Mutex
		objects map[string][]byte
		mode    mode
		reads   int
		ready   chan struct{} // closed when it doesn't hang any more
	}
}

type mode int

const (
	works mode = iota
	unavailable
	hangs
)

func newFake(name string) *fake {
	f := &fake{name: name}
	f.mu.objects = make(map[string][]byte)
	return f
}

func (f *fake) String() string { return f.name }

func (f *fake) set(m mode) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.mode = m
	if f.mu.ready != nil {
		close(f.mu.ready)
		f.mu.ready = nil
	}
	if m == hangs {
		f.mu.ready = make(chan struct{})
	}
}

func (f *fake) call(ctx context.Context) error {
	f.mu.Lock()
	m, ready := f.mu.mode, f.mu.ready
	f.mu.Unlock()
	switch m {
	case unavailable:
		return fmt.Errorf("%s: %w", f.name, target.ErrUnavailable)
	case hangs:
		select {
		case <-ctx.Done():
		case <-ready:
		}
	}
	return ctx.Err()
}

func (f *fake) Put(ctx context.Context, name string, src target.Source, o target.PutOptions) error {
	if err := f.call(ctx); err != nil {
		return err
	}
	var b bytes.Buffer
	buf := make([]byte, 100<<10) // fits nothing
	if _, err := io.CopyBuffer(struct{ io.Writer }{&b}, io.NewSectionReader(src, 0, src.Size()), buf); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if o.IfAbsent && f.mu.objects[name] != nil {
		return target.ErrExists
	}
	f.mu.objects[name] = b.Bytes()
	return nil
}

func (f *fake) Open(ctx context.Context, name string) (target.Object, error) {
	if err := f.call(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	data := f.mu.objects[name]
	if data == nil {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return &fakeObject{f, data}, nil
}

func (f *fake) List(ctx context.Context, prefix string) ([]target.Info, error) {
	if err := f.call(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []target.Info
	for _, name := range slices.Sorted(maps.Keys(f.mu.objects)) {
		if strings.HasPrefix(name, prefix) {
			out = append(out, target.Info{Name: name, Size: int64(len(f.mu.objects[name]))})
		}
	}
	return out, nil
}

func (f *fake) Remove(ctx context.Context, names ...string) error {
	if err := f.call(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range names {
		delete(f.mu.objects, name)
	}
	return nil
}

type fakeObject struct {
	f    *fake
	data []byte
}

func (o *fakeObject) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := o.f.call(ctx); err != nil {
		return 0, err
	}
	o.f.mu.Lock()
	o.f.mu.reads++
	o.f.mu.Unlock()
	return bytes.NewReader(o.data).ReadAt(p, off)
}

func (o *fakeObject) Close() error { return nil }
func (o *fakeObject) Size() int64  { return int64(len(o.data)) }

// content is a copy of what a fake has; the bytes are shared.
func (f *fake) content() map[string][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.mu.objects)
}

func (f *fake) restore(objects map[string][]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.objects = maps.Clone(objects)
}

// change replaces what each object is; nil removes it.
func (f *fake) change(edit func(name string, data []byte) []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, data := range f.mu.objects {
		if data = edit(name, bytes.Clone(data)); data == nil {
			delete(f.mu.objects, name)
		} else {
			f.mu.objects[name] = data
		}
	}
}

func newFakes(n int) []*fake {
	out := make([]*fake, n)
	for i := range out {
		out[i] = newFake(fmt.Sprintf("t%d", i))
	}
	return out
}

// quick are options that give tests short waits.
func quick() Options {
	return Options{HedgeAfter: 20 * time.Millisecond, StallAfter: time.Second, RetryAfter: 200 * time.Millisecond}
}

func over(t testing.TB, layout string, fakes []*fake, o Options) *Target {
	t.Helper()
	l, err := ParseLayout(layout)
	if err != nil {
		t.Fatal(err)
	}
	var members []Member
	for _, f := range fakes {
		members = append(members, Member{ID: "id-" + f.name, Target: f})
	}
	tg, err := New(l, members, o)
	if err != nil {
		t.Fatal(err)
	}
	return tg
}

// random returns n bytes, the same for the same seed.
func random(seed uint64, n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(p)
	return p
}

func mustPut(t testing.TB, tg target.Target, name string, data []byte) {
	t.Helper()
	if err := target.Put(t.Context(), tg, name, data); err != nil {
		t.Fatal(err)
	}
}

func wantContent(t testing.TB, tg target.Target, name string, want []byte) {
	t.Helper()
	got, err := target.Get(t.Context(), tg, name, 1<<30)
	if err != nil {
		t.Fatalf("get %s: %v", name, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s: %d bytes read differ from the %d put", name, len(got), len(want))
	}
}
