package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"graphvol/chunkstore/target/s3/s3test"
)

// s3Server starts an S3 server whose bucket is below the work directory, and sets the environment's keys to its own. done ends it and removes the bucket.
func (b *bench) s3Server(ctx context.Context) (s *s3test.Server, done func(), err error) {
	root := filepath.Join(b.dir, "s3")
	if err := os.Mkdir(root, 0o700); err != nil {
		return nil, func() {}, err
	}
	for name, value := range s3test.Environ(filepath.Join(b.dir, "none")) {
		if err := os.Setenv(name, value); err != nil {
			return nil, func() {}, err
		}
	}
	if s, err = s3test.Launch(ctx, root); err != nil {
		return nil, func() { os.RemoveAll(root) }, err
	}
	return s, func() { s.Stop(); os.RemoveAll(root) }, nil
}

// meter is a proxy before an S3 server that counts what passes.
type meter struct {
	addr   string
	server *http.Server

	mu     sync.Mutex
	idle   *sync.Cond // no request is being answered
	active int
	traffic
}

// traffic is what has passed: requests by method, and the bytes of their bodies and of the answers'.
type traffic struct {
	requests map[string]int
	up, down int64
}

func newMeter(s *s3test.Server) (*meter, error) {
	to, err := url.Parse(s.Endpoint())
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m := &meter{addr: l.Addr().String()}
	m.idle = sync.NewCond(&m.mu)
	m.take()
	// The host stays the one that the client has signed.
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = to.Scheme, to.Host }}
	m.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil {
			r.Body = &counted{r.Body, func(n int) { m.count(func(t *traffic) { t.up += int64(n) }) }}
		}
		m.begin(r.Method)
		defer m.end()
		proxy.ServeHTTP(&countedAnswer{w, func(n int) { m.count(func(t *traffic) { t.down += int64(n) }) }}, r)
	})}
	go m.server.Serve(l)
	return m, nil
}

func (m *meter) close() error { return m.server.Close() }

func (m *meter) count(fn func(*traffic)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn(&m.traffic)
}

func (m *meter) begin(method string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.active++
	m.requests[method]++
}

func (m *meter) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.active--; m.active == 0 {
		m.idle.Broadcast()
	}
}

// take gives what has passed since it was called last, with what is still being counted: who has an answer may be faster than that.
func (m *meter) take() traffic {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.active > 0 {
		m.idle.Wait()
	}
	t := m.traffic
	m.traffic = traffic{requests: make(map[string]int)}
	return t
}

func (t *traffic) total() (n int) {
	for _, k := range t.requests {
		n += k
	}
	return n
}

type counted struct {
	io.ReadCloser
	add func(int)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.add(n)
	return n, err
}

type countedAnswer struct {
	http.ResponseWriter
	add func(int)
}

func (c *countedAnswer) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.add(n)
	return n, err
}

// Unwrap lets the proxy flush.
func (c *countedAnswer) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// objects counts the objects in the server's bucket.
func objects(s *s3test.Server) (n int, err error) {
	err = filepath.WalkDir(filepath.Join(s.Root, s3test.Bucket), func(_ string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			n++
		}
		return err
	})
	return n, err
}

// recoveryText writes a volume's recovery text to a file, with which a bare machine reads its copies.
func recoveryText(ctx context.Context, run func(context.Context, ...string) (string, error), volume, path string) error {
	text, err := run(ctx, "key", "recovery", volume)
	if err == nil && text == "" {
		err = errors.New("key recovery printed nothing")
	}
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o600)
}
