package s3_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"graphvol/chunkstore/target"
	"graphvol/chunkstore/target/s3"
	"graphvol/chunkstore/target/s3/s3test"
)

// faulty is a target at a server whose answers, after that to Open, come from handle.
func faulty(t *testing.T, handle http.HandlerFunc) *s3.Bucket {
	t.Helper()
	return impatient(t, time.Minute, handle)
}

// impatient is faulty, and waits no longer than stall for a byte.
func impatient(t *testing.T, stall time.Duration, handle http.HandlerFunc) *s3.Bucket {
	t.Helper()
	s3test.Credentials(t)
	var opened atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if opened.CompareAndSwap(false, true) {
			answer(w, http.StatusOK, `<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>`)
			return
		}
		handle(w, r)
	}))
	t.Cleanup(srv.Close)
	cfg := config(srv.URL, "vol")
	cfg.Stall = stall
	return open(t, cfg)
}

// patience is much for a busy machine to open a connection, and little for a test to wait.
const patience = 2 * time.Second

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprint(w, xml.Header+text)
}

func refuse(status int, code string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answer(w, status, "<Error><Code>"+code+"</Code><Message>for a test</Message><Region>eu-north-1</Region></Error>")
	}
}

// object answers with a range of n bytes of an object of size bytes, of which it sends no more than send.
func part(size, n, send int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"e"`)
		w.Header().Set("Last-Modified", time.Unix(0, 0).UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", n-1, size))
		w.Header().Set("Content-Length", fmt.Sprint(n))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(make([]byte, send))
		_ = http.NewResponseController(w).Flush()
	}
}

func hang(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // or the end of the connection isn't noticed
	select {
	case <-r.Context().Done():
	case <-time.After(5 * patience):
	}
}

func TestFaults(t *testing.T) {
	reset := func(w http.ResponseWriter, r *http.Request) {
		part(1000, 1000, 500)(w, r)
		c, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			c.Close()
		}
	}
	for _, c := range []struct {
		name   string
		handle http.HandlerFunc
		class  error // nil: one of the medium
		want   string
	}{
		{"SlowDown", refuse(503, "SlowDown"), target.ErrUnavailable, "SlowDown: for a test"},
		{"Internal", refuse(500, "InternalError"), target.ErrUnavailable, "InternalError"},
		{"BadGateway", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(502) }, target.ErrUnavailable, ""},
		{"TooMany", refuse(429, "TooManyRequests"), target.ErrUnavailable, ""},
		{"BadDigest", refuse(400, "BadDigest"), target.ErrUnavailable, "damaged on the way"},
		{"RequestTimeout", refuse(400, "RequestTimeout"), target.ErrUnavailable, ""},
		{"Denied", refuse(403, "AccessDenied"), target.ErrDenied, "docs/targets.md"},
		{"DeniedByProxy", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) }, target.ErrDenied, "AccessDenied"},
		{"Key", refuse(403, "InvalidAccessKeyId"), target.ErrDenied, "access key"},
		{"KeyUnknown", refuse(404, "XAdminUserNotFound"), target.ErrDenied, "access key"},
		{"Signature", refuse(403, "SignatureDoesNotMatch"), target.ErrDenied, "secret key"},
		{"Bucket", refuse(404, "NoSuchBucket"), target.ErrDenied, "aws s3 mb"},
		{"Clock", refuse(403, "RequestTimeTooSkewed"), target.ErrDenied, "clock"},
		{"Region", refuse(301, "PermanentRedirect"), target.ErrDenied, "region=eu-north-1"},
		{"Archived", refuse(403, "InvalidObjectState"), target.ErrDenied, "archived"},
		{"Strange", refuse(400, "Whatever"), target.ErrDenied, "Whatever"},
		{"Full", refuse(507, "XMinioStorageFull"), nil, "make room"},
		{"Hostile", refuse(400, "A\n&#9;B\u009b31m"+strings.Repeat("x", 1000)), target.ErrDenied, "A B31mxx"},
		{"Missing", refuse(404, "NoSuchKey"), fs.ErrNotExist, ""},
		{"NotS3", func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, target.ErrUnavailable, "isn't one of an S3 server"},
		{"Cut", part(1000, 1000, 500), target.ErrUnavailable, "unexpected EOF"},
		{"Reset", reset, target.ErrUnavailable, "EOF"},
		{"Hang", hang, target.ErrUnavailable, "timeout"},
		{"HangInBody", func(w http.ResponseWriter, r *http.Request) { part(1000, 1000, 500)(w, r); hang(w, r) }, target.ErrUnavailable, "timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			stall := time.Minute
			if c.want == "timeout" {
				stall = patience
			}
			b := impatient(t, stall, c.handle)
			var err error
			got := sent(b, func() { _, err = b.Open(t.Context(), "packs/1") })
			if got != (s3.Requests{Get: 1}) {
				t.Errorf("%+v were sent", got)
			}
			for _, class := range []error{target.ErrUnavailable, target.ErrDenied, fs.ErrNotExist, target.ErrExists} {
				if is := errors.Is(err, class); is != (class == c.class) {
					t.Errorf("%v: is %q: %v", err, class, is)
				}
			}
			if err != nil && (strings.Contains(err.Error(), "\n") || len(err.Error()) > 2000) {
				t.Errorf("not a line for people: %q", err)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "packs/1 in s3://"+s3test.Bucket+"/vol at") {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	b := faulty(t, hang)
	for what, f := range map[string]func(context.Context) error{
		"put":    func(ctx context.Context) error { return target.Put(ctx, b, "a", make([]byte, 1000)) },
		"open":   func(ctx context.Context) error { _, err := b.Open(ctx, "a"); return err },
		"list":   func(ctx context.Context) error { _, err := b.List(ctx, ""); return err },
		"remove": func(ctx context.Context) error { return b.Remove(ctx, "a", "b") },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, cancel)
		if err := f(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, target.ErrUnavailable) {
			t.Errorf("%s, cancelled: %v", what, err)
		}
		if err := f(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s, cancelled before: %v", what, err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := f(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, target.ErrUnavailable) {
			t.Errorf("%s, out of time: %v", what, err)
		}
		cancel()
	}
}

// TestSlow: a request may take longer than the time without a byte that ends it.
func TestSlow(t *testing.T) {
	b := impatient(t, patience, func(w http.ResponseWriter, r *http.Request) {
		part(10, 10, 0)(w, r)
		for range 10 {
			time.Sleep(patience / 8)
			_, _ = w.Write([]byte("x"))
			_ = http.NewResponseController(w).Flush()
		}
	})
	if got := get(t, b, "a"); string(got) != "xxxxxxxxxx" {
		t.Errorf("%q", got)
	}
}

// TestWrongAnswers: what isn't what was asked for is never taken for it.
func TestWrongAnswers(t *testing.T) {
	whole := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Last-Modified", time.Unix(0, 0).UTC().Format(http.TimeFormat))
		w.Header().Set("Content-Length", "100000")
		_, _ = w.Write(bytes.Repeat([]byte("0123456789"), 10_000))
	}
	o, err := faulty(t, whole).Open(t.Context(), "a") // a server without ranges
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 10)
	if _, err := o.ReadAt(t.Context(), p, 9); err != nil || string(p) != "9012345678" || o.Size() != 100_000 {
		t.Errorf("%q of %d bytes, %v", p, o.Size(), err)
	}
	if _, err := o.ReadAt(t.Context(), p, 50_003); err == nil {
		t.Errorf("the beginning was taken for the middle: %q", p)
	}
	for _, size := range []int{50_000, 200_000} { // another object, of the same ETag
		n := 0
		b := faulty(t, func(w http.ResponseWriter, r *http.Request) {
			if n++; n > 1 {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 40000-40009/%d", size))
				w.Header().Set("Last-Modified", time.Unix(0, 0).UTC().Format(http.TimeFormat))
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(make([]byte, 10))
				return
			}
			part(100_000, 16384, 16384)(w, r)
		})
		o, err := b.Open(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.ReadAt(t.Context(), p, 40_000); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("size %d: %v, want fs.ErrNotExist", size, err)
		}
	}
}

func TestRemoveErrors(t *testing.T) {
	respond := func(text string) *s3.Bucket {
		return faulty(t, func(w http.ResponseWriter, r *http.Request) { answer(w, 200, "<DeleteResult>"+text+"</DeleteResult>") })
	}
	one := func(key, code string) string {
		return "<Error><Key>vol/" + key + "</Key><Code>" + code + "</Code><Message>for a test</Message></Error>"
	}
	ok := "<Deleted><Key>vol/a</Key></Deleted>"
	for _, c := range []struct {
		answer string
		class  error
		want   string
	}{
		{ok + one("b", "AccessDenied"), target.ErrDenied, "remove 2 objects, of which 1 failed; the first b in s3://"},
		{ok + one("b", "InternalError"), target.ErrUnavailable, "InternalError"},
		{ok + one("b", "InvalidArgument"), nil, "doesn't mention 1 of 2"}, // the library drops this one
		{ok, nil, "doesn't mention 1 of 2"},
	} {
		err := respond(c.answer).Remove(t.Context(), "a", "b")
		if err == nil || c.class != nil && !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %v, %q", c.answer, err, c.class, c.want)
		}
	}
	if err := respond(ok+one("b", "NoSuchKey")).Remove(t.Context(), "a", "b"); err != nil {
		t.Error(err)
	}
	if err := faulty(t, refuse(503, "SlowDown")).Remove(t.Context(), "a", "b"); !errors.Is(err, target.ErrUnavailable) {
		t.Error(err)
	}
}

// badSource fails after its first half.
type badSource struct {
	size int64
	err  error
}

func (s badSource) Size() int64 { return s.size }

func (s badSource) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > s.size/2 {
		return 0, s.err
	}
	return len(p), nil
}

func TestPutFaults(t *testing.T) {
	srv := s3test.Start(t)
	b := open(t, config(srv.Endpoint(), "vol"))
	bad := errors.New("this disk is broken")
	for _, size := range []int64{1 << 20, 100 << 20} {
		err := b.Put(t.Context(), "a", badSource{size, bad}, target.PutOptions{})
		if !errors.Is(err, bad) || errors.Is(err, target.ErrUnavailable) {
			t.Errorf("a source of %d bytes: %v, want its error alone", size, err)
		}
	}
	if got := len(unfinished(t, srv)); got != 0 {
		t.Errorf("%d unfinished uploads are left", got)
	}
	b = faulty(t, refuse(400, "XAmzContentSHA256Mismatch"))
	if err := target.Put(t.Context(), b, "a", []byte("x")); !errors.Is(err, target.ErrUnavailable) {
		t.Error(err)
	}
	b = faulty(t, refuse(409, "ConditionalRequestConflict"))
	if err := b.Put(t.Context(), "a", strings.NewReader("x"), target.PutOptions{IfAbsent: true}); !errors.Is(err, target.ErrUnavailable) {
		t.Error(err)
	}
}

// unfinished returns the directories in which the server keeps unfinished uploads.
func unfinished(t *testing.T, srv *s3test.Server) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(srv.Root, s3test.Bucket, ".sgwtmp", "multipart", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(p string) bool {
		st, err := os.Stat(p)
		return err != nil || !st.IsDir()
	})
}

// proxy stands before a server. cut is asked before each request whether the connection shall break in the middle of it.
func proxy(t *testing.T, srv *s3test.Server, cut func(r *http.Request) bool) *httptest.Server {
	to, err := url.Parse(srv.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	p := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host // it is signed
		},
		Transport: transport,
		ErrorLog:  log.New(io.Discard, "", 0), // of requests that were cancelled
	}
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !cut(r) {
			p.ServeHTTP(w, r)
			return
		}
		_, _ = r.Body.Read(make([]byte, 1000))
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			c.Close()
		}
	}))
	front.Config.ErrorLog = p.ErrorLog
	return front
}

func plain(t *testing.T, s *httptest.Server) string {
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

// part sizes for tests; the server takes none below 5 MiB.
const (
	testSingle = 6 << 20
	testPart   = 5 << 20
)

func isPart(r *http.Request) bool {
	return r.Method == http.MethodPut && r.URL.Query().Has("partNumber")
}

func TestLongObject(t *testing.T) {
	srv := s3test.Start(t)
	const parts = 6
	data := random(5*testPart + 12345)
	var allowed atomic.Int64 // parts that get through
	b := open(t, config(plain(t, proxy(t, srv, func(r *http.Request) bool { return isPart(r) && allowed.Add(-1) < 0 })), "vol"))
	b.SetSizes(testSingle, testPart)
	allowed.Store(1000)
	wantSent(t, b, "put it", s3.Requests{Put: parts + 2, List: 1}, func() { put(t, b, "packs/1", data) })

	allowed.Store(3)
	err := target.Put(t.Context(), b, "packs/2", data)
	if !errors.Is(err, target.ErrUnavailable) {
		t.Fatalf("cut: %v, want ErrUnavailable", err)
	}
	if got := len(unfinished(t, srv)); got != 1 {
		t.Fatalf("%d unfinished uploads, want 1", got)
	}
	if infos, err := b.List(t.Context(), ""); err != nil || len(infos) != 1 {
		t.Errorf("listed: %v, %v", infos, err)
	}

	// Another content of the same name doesn't continue it, and lets it be: it is young.
	other := bytes.Clone(data)
	other[0]++
	other[len(other)-1]++
	for i := 0; i < len(other); i += testPart {
		other[i]++
	}
	allowed.Store(1000)
	wantSent(t, b, "put another", s3.Requests{Put: parts + 2, List: 2}, func() { put(t, b, "packs/2", other) })
	if !bytes.Equal(get(t, b, "packs/2"), other) {
		t.Error("the other object differs")
	}

	wantSent(t, b, "continue", s3.Requests{Put: parts - 3 + 1, List: 2}, func() { put(t, b, "packs/2", data) })
	if !bytes.Equal(get(t, b, "packs/2"), data) {
		t.Error("the continued object differs")
	}
	if got := len(unfinished(t, srv)); got != 0 {
		t.Errorf("%d unfinished uploads are left", got)
	}

	err = b.Put(t.Context(), "packs/2", bytes.NewReader(other), target.PutOptions{IfAbsent: true})
	if !errors.Is(err, target.ErrExists) {
		t.Errorf("if absent: %v, want ErrExists", err)
	}
	if got := len(unfinished(t, srv)); got != 0 {
		t.Errorf("%d unfinished uploads are left after ErrExists", got)
	}
	if !bytes.Equal(get(t, b, "packs/2"), data) {
		t.Error("it was replaced")
	}
}

// TestAbandonedUpload: what an upload of another content has left is removed, but not on the same day.
func TestAbandonedUpload(t *testing.T) {
	srv := s3test.Start(t)
	data := random(15 << 20)
	var cut atomic.Bool
	var sent atomic.Int64
	b := open(t, config(plain(t, proxy(t, srv, func(r *http.Request) bool { return cut.Load() && isPart(r) && sent.Add(1) > 1 })), "vol"))
	b.SetSizes(testSingle, testPart)
	cut.Store(true)
	if err := target.Put(t.Context(), b, "a", data); !errors.Is(err, target.ErrUnavailable) {
		t.Fatal(err)
	}
	cut.Store(false)
	for i := range data {
		data[i]++
	}
	put(t, b, "a", data)
	all := unfinished(t, srv)
	if len(all) != 1 {
		t.Fatalf("unfinished: %v, want one", all)
	}
	old := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(all[0], old, old); err != nil {
		t.Fatal(err)
	}
	put(t, b, "a", data)
	if all := unfinished(t, srv); len(all) != 0 {
		t.Errorf("unfinished: %v, want none", all)
	}
}

func TestLongObjectCancelled(t *testing.T) {
	srv := s3test.Start(t)
	data := random(5 * testPart)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var n atomic.Int64
	b := open(t, config(plain(t, proxy(t, srv, func(r *http.Request) bool {
		if isPart(r) && n.Add(1) == 4 {
			cancel()
		}
		return false
	})), "vol"))
	b.SetSizes(testSingle, testPart)
	if err := target.Put(ctx, b, "a", data); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	got := sent(b, func() { put(t, b, "a", data) })
	if got.Put > 6 || got.List != 2 {
		t.Errorf("continued with %+v", got)
	}
	if !bytes.Equal(get(t, b, "a"), data) {
		t.Error("the object differs")
	}
}

// TestConnectionIsReused: requests one after the other share one connection, whatever they are answered.
func TestConnectionIsReused(t *testing.T) {
	srv := s3test.Start(t)
	front := proxy(t, srv, func(*http.Request) bool { return false })
	var connections atomic.Int64
	front.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	b := open(t, config(plain(t, front), "vol"))
	for range 10 {
		put(t, b, "a", random(100_000))
		get(t, b, "a")
		put(t, b, "empty", nil)
		get(t, b, "empty")
		if _, err := b.Open(t.Context(), "none"); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		if err := b.Put(t.Context(), "a", strings.NewReader("x"), target.PutOptions{IfAbsent: true}); !errors.Is(err, target.ErrExists) {
			t.Error(err)
		}
		if _, err := b.List(t.Context(), ""); err != nil {
			t.Error(err)
		}
		if err := b.Remove(t.Context(), "empty"); err != nil {
			t.Error(err)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections for 100 requests", n)
	}
}

func TestTLS(t *testing.T) {
	srv := s3test.Start(t)
	front := proxy(t, srv, func(*http.Request) bool { return false })
	front.StartTLS()
	t.Cleanup(front.Close)
	cfg := config(strings.TrimPrefix(front.URL, "https://"), "vol")
	cfg.Insecure = false
	b := open(t, cfg)
	b.SetSizes(testSingle, testPart)
	for _, size := range []int{0, 1, 100_000, testSingle + 1} {
		data := random(size)
		put(t, b, "a", data)
		if !bytes.Equal(get(t, b, "a"), data) {
			t.Errorf("%d bytes: they differ", size)
		}
	}
	_, port, _ := strings.Cut(cfg.Endpoint, ":")
	cfg.Endpoint = "localhost:" + port // which the certificate isn't for
	if _, err := s3.Open(t.Context(), cfg); !errors.Is(err, target.ErrUnavailable) || !strings.Contains(err.Error(), "SSL_CERT_FILE") {
		t.Errorf("a wrong certificate: %v", err)
	}
}
