package s3

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// stall is how long a request may go without a byte in either direction. A server that puts the parts of a long object together may need a while.
const stall = 2 * time.Minute

// newTransport returns a transport whose requests end when no byte has moved for limit, however long they take as a whole.
func newTransport(limit time.Duration) *http.Transport {
	if limit <= 0 {
		limit = stall
	}
	dialer := &net.Dialer{Timeout: min(limit, 10*time.Second), KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &watched{c, limit}, nil
		},
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 32,
		// Shorter than what servers and load balancers allow: a request on a connection that they are about to close fails.
		IdleConnTimeout: 15 * time.Second,
		// An object is what was put, whatever its Content-Encoding says.
		DisableCompression: true,
	}
}

// watched is a connection that fails when nothing moves. A write extends the deadline of the read that waits for the answer.
type watched struct {
	net.Conn
	limit time.Duration
}

func (c *watched) Read(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *watched) Write(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// Requests counts requests by what they cost: Put is everything that makes objects, List includes unfinished uploads.
type Requests struct {
	Put, Get, List, Delete int64
}

type counters struct {
	put, get, list, delete atomic.Int64
}

func (c *counters) read() Requests {
	return Requests{Put: c.put.Load(), Get: c.get.Load(), List: c.list.Load(), Delete: c.delete.Load()}
}

// of returns the counter for a request.
func (c *counters) of(r *http.Request) *atomic.Int64 {
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodDelete, r.Method == http.MethodPost && q.Has("delete"):
		return &c.delete
	case r.Method == http.MethodPut, r.Method == http.MethodPost:
		return &c.put
	case q.Has("list-type"), q.Has("uploads"), q.Has("uploadId"), q.Has("location"):
		return &c.list
	}
	return &c.get
}

// counting counts what is sent.
type counting struct {
	next http.RoundTripper
	n    *counters
}

var _ http.RoundTripper = (*counting)(nil)

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.of(r).Add(1)
	return c.next.RoundTrip(r)
}
