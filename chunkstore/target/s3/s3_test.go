package s3_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
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
	"graphvol/chunkstore/target/targettest"
)

func config(endpoint, prefix string) s3.Config {
	return s3.Config{Bucket: s3test.Bucket, Prefix: prefix, Endpoint: endpoint, Insecure: true}
}

func open(t testing.TB, cfg s3.Config) *s3.Bucket {
	t.Helper()
	b, err := s3.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func random(n int) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(p)
	return p
}

func put(t testing.TB, b *s3.Bucket, name string, data []byte) {
	t.Helper()
	if err := target.Put(t.Context(), b, name, data); err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, b *s3.Bucket, name string) []byte {
	t.Helper()
	p, err := target.Get(t.Context(), b, name, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sent returns the requests that f makes.
func sent(b *s3.Bucket, f func()) s3.Requests {
	before := b.Requests()
	f()
	r := b.Requests()
	return s3.Requests{Put: r.Put - before.Put, Get: r.Get - before.Get, List: r.List - before.List, Delete: r.Delete - before.Delete}
}

func wantSent(t *testing.T, b *s3.Bucket, what string, want s3.Requests, f func()) {
	t.Helper()
	if got := sent(b, f); got != want {
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

func TestBucket(t *testing.T) {
	srv := s3test.Start(t)
	n := 0
	targettest.Run(t, func(t *testing.T) target.Target {
		n++
		return open(t, config(srv.Endpoint(), fmt.Sprint("part/", n)))
	})
	t.Run("WholeBucket", func(t *testing.T) {
		b := open(t, config(srv.Endpoint(), ""))
		put(t, b, "x", []byte("y"))
		infos, err := b.List(t.Context(), "part/1/")
		if err != nil || len(infos) == 0 || len(get(t, b, "x")) != 1 {
			t.Errorf("%v, %v", infos, err)
		}
	})
}

func TestRequests(t *testing.T) {
	srv := s3test.Start(t)
	b := open(t, config(srv.Endpoint(), "vol"))
	if got, want := b.Requests(), (s3.Requests{List: 1}); got != want {
		t.Errorf("Open: %+v, want %+v", got, want)
	}
	pack := random(32 << 20)
	wantSent(t, b, "put a pack", s3.Requests{Put: 1}, func() { put(t, b, "packs/aa/1.pack", pack) })
	wantSent(t, b, "open, read its header", s3.Requests{Get: 1}, func() {
		o, err := b.Open(t.Context(), "packs/aa/1.pack")
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 16<<10)
		if _, err := o.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, pack[:len(p)]) {
			t.Errorf("the header differs, or %v", err)
		}
	})
	wantSent(t, b, "read across the end of the first bytes", s3.Requests{Get: 2}, func() {
		o, err := b.Open(t.Context(), "packs/aa/1.pack")
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 1<<20)
		if _, err := o.ReadAt(t.Context(), p, 16380); err != nil || !bytes.Equal(p, pack[16380:16380+len(p)]) {
			t.Errorf("the bytes differ, or %v", err)
		}
	})
	wantSent(t, b, "a small object", s3.Requests{Put: 1, Get: 1}, func() {
		put(t, b, "manifests/1.json", []byte("{}"))
		get(t, b, "manifests/1.json")
	})
	wantSent(t, b, "remove nothing", s3.Requests{}, func() {
		if err := b.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestManyObjects(t *testing.T) {
	srv := s3test.Start(t)
	b := open(t, config(srv.Endpoint(), "vol"))
	put(t, b, "packs/00/first", []byte("x"))
	for _, dir := range []string{"packs", "packs2"} { // put by hand: 2,500 requests would take their time
		if err := os.MkdirAll(srv.File("vol/"+dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var all []string
	for i := range 2499 {
		name := fmt.Sprintf("packs/%04d.pack", i)
		all = append(all, name)
		if err := os.WriteFile(srv.File("vol/"+name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, strange := range []string{"packs/with space", "packs/.hidden"} {
		if err := os.WriteFile(srv.File("vol/"+strange), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all = append(all, "packs/00/first")
	slices.Sort(all)
	wantSent(t, b, "list 2,500 objects", s3.Requests{List: 3}, func() {
		infos, err := b.List(t.Context(), "packs/")
		if err != nil || len(infos) != len(all) {
			t.Fatalf("%d objects, %v", len(infos), err)
		}
		for i, in := range infos {
			if in.Name != all[i] || in.Size != 1 {
				t.Fatalf("%d is %+v, want %s", i, in, all[i])
			}
		}
	})
	wantSent(t, b, "remove them", s3.Requests{Delete: 3}, func() {
		if err := b.Remove(t.Context(), all...); err != nil {
			t.Fatal(err)
		}
	})
	if infos, err := b.List(t.Context(), ""); err != nil || len(infos) != 0 {
		t.Errorf("left: %v, %v", infos, err)
	}
}

func TestReplacedObject(t *testing.T) {
	srv := s3test.Start(t)
	b := open(t, config(srv.Endpoint(), "vol"))
	first, second := random(100_000), random(200_000)[100_000:]
	put(t, b, "a", first)
	o, err := b.Open(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, "a", second)
	p := make([]byte, 100)
	if _, err := o.ReadAt(t.Context(), p, 50_000); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("replaced: %v, want fs.ErrNotExist", err)
	}
	if o, err = b.Open(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := b.Remove(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := o.ReadAt(t.Context(), p, 50_000); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed: %v, want fs.ErrNotExist", err)
	}
	if _, err := o.ReadAt(t.Context(), p, -1); err == nil {
		t.Error("a read before the beginning was accepted")
	}
	if n, err := o.ReadAt(t.Context(), p, 100_000); n != 0 || err != io.EOF {
		t.Errorf("read at the end: %d, %v", n, err)
	}
}

func TestOpenErrors(t *testing.T) {
	srv := s3test.Start(t)
	_, secret := s3test.Keys()
	for _, c := range []struct {
		name   string
		change func(*s3.Config)
		env    [2]string
		class  error
		want   string
	}{
		{"NoBucket", func(c *s3.Config) { c.Bucket = "no-such-bucket" }, [2]string{}, target.ErrDenied, "aws s3 mb s3://no-such-bucket --endpoint-url http://127.0.0.1:"},
		{"Secret", nil, [2]string{"AWS_SECRET_ACCESS_KEY", "wrong"}, target.ErrDenied, ""},
		{"Key", nil, [2]string{"AWS_ACCESS_KEY_ID", "nobody"}, target.ErrDenied, ""},
		{"NoKeys", nil, [2]string{"AWS_ACCESS_KEY_ID", ""}, target.ErrDenied, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"},
		{"NoProfile", func(c *s3.Config) { c.Profile = "none" }, [2]string{}, target.ErrDenied, "no credentials"},
		{"NoTLS", func(c *s3.Config) { c.Endpoint, c.Insecure = srv.Addr, false }, [2]string{}, target.ErrUnavailable, "insecure=1"},
		{"NoServer", func(c *s3.Config) { c.Endpoint = "http://127.0.0.1:1" }, [2]string{}, target.ErrUnavailable, "connection refused"},
		{"Insecure", func(c *s3.Config) { c.Insecure = false }, [2]string{}, nil, "in the clear"},
		{"NotInsecure", func(c *s3.Config) { c.Endpoint = "https://127.0.0.1:1" }, [2]string{}, nil, "leave out insecure"},
		{"Scheme", func(c *s3.Config) { c.Endpoint = "ftp://a" }, [2]string{}, nil, "https://"},
		{"Path", func(c *s3.Config) { c.Endpoint = "http://a/b" }, [2]string{}, nil, "host:port"},
		{"KeysInEndpoint", func(c *s3.Config) { c.Endpoint = "http://a:topsecret@b" }, [2]string{}, nil, "credentials don't belong"},
		{"BucketName", func(c *s3.Config) { c.Bucket = "a/b" }, [2]string{}, nil, "ucket name"},
		{"Prefix", func(c *s3.Config) { c.Prefix = "../x" }, [2]string{}, target.ErrBadName, "prefix"},
		{"Style", func(c *s3.Config) { c.Style = "new" }, [2]string{}, nil, "path and host"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config(srv.Endpoint(), "vol")
			if c.change != nil {
				c.change(&cfg)
			}
			if c.env[0] != "" {
				t.Setenv(c.env[0], c.env[1])
			}
			_, err := s3.Open(t.Context(), cfg)
			if err == nil || c.class != nil && !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want %v, %q", err, c.class, c.want)
			}
			if s := err.Error(); strings.Contains(s, secret) || strings.Contains(s, "topsecret") || strings.Contains(s, "\n") {
				t.Errorf("unfit for a message: %q", s)
			}
			t.Log(err)
		})
	}
}

func TestCredentialsOfProfile(t *testing.T) {
	srv := s3test.Start(t)
	access, secret := s3test.Keys()
	file := filepath.Join(t.TempDir(), "credentials")
	text := fmt.Sprintf("[default]\naws_access_key_id = x\naws_secret_access_key = y\n[backup]\naws_access_key_id = %s\naws_secret_access_key = %s\n", access, secret)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	t.Setenv("AWS_ACCESS_KEY_ID", "wrong") // the profile that was asked for comes first
	cfg := config(srv.Endpoint(), "vol")
	if _, err := s3.Open(t.Context(), cfg); !errors.Is(err, target.ErrDenied) {
		t.Errorf("the environment's wrong key: %v", err)
	}
	cfg.Profile = "backup"
	put(t, open(t, cfg), "a", []byte("x"))

	cfg.Profile = ""
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	if _, err := s3.Open(t.Context(), cfg); !errors.Is(err, target.ErrDenied) {
		t.Errorf("the wrong default profile: %v", err)
	}
	t.Setenv("AWS_PROFILE", "backup")
	b := open(t, cfg)
	if got := b.String(); got != "s3://"+s3test.Bucket+"/vol at "+srv.Addr {
		t.Errorf("String: %s", got)
	}
	t.Setenv("AWS_PROFILE", "")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "")
	t.Setenv("MINIO_ACCESS_KEY", access)
	t.Setenv("MINIO_SECRET_KEY", secret)
	open(t, cfg)
}

// TestCredentialsOfRole: a container's role has keys for a while; that new ones can't be had is an outage.
func TestCredentialsOfRole(t *testing.T) {
	srv := s3test.Start(t)
	access, secret := s3test.Keys()
	var down atomic.Bool
	role := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, `{"AccessKeyId": %q, "SecretAccessKey": %q, "Expiration": %q}`, access, secret, time.Now().Add(time.Second).UTC().Format(time.RFC3339Nano))
	}))
	t.Cleanup(role.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "")
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", role.URL)
	b := open(t, config(srv.Endpoint(), "vol"))
	put(t, b, "a", []byte("x"))
	down.Store(true)
	time.Sleep(time.Second)
	if err := target.Put(t.Context(), b, "a", []byte("x")); !errors.Is(err, target.ErrUnavailable) || errors.Is(err, target.ErrDenied) {
		t.Errorf("no new keys: %v, want ErrUnavailable", err)
	}
	if _, err := s3.Open(t.Context(), config(srv.Endpoint(), "vol")); !errors.Is(err, target.ErrDenied) {
		t.Errorf("no keys: %v, want ErrDenied", err)
	}
	down.Store(false)
	put(t, b, "a", []byte("x"))
}

// TestOutage: what fails while the server is away works when it is back.
func TestOutage(t *testing.T) {
	srv := s3test.Start(t)
	b := open(t, config(srv.Endpoint(), "vol"))
	put(t, b, "a", random(100_000))
	o, err := b.Open(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	srv.Stop()
	_, rerr := o.ReadAt(t.Context(), make([]byte, 10), 50_000)
	_, oerr := b.Open(t.Context(), "a")
	_, lerr := b.List(t.Context(), "")
	for what, err := range map[string]error{
		"read": rerr, "open": oerr, "list": lerr, "put": target.Put(t.Context(), b, "b", []byte("x")), "remove": b.Remove(t.Context(), "a"),
	} {
		if !errors.Is(err, target.ErrUnavailable) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s without a server: %v, want ErrUnavailable", what, err)
		}
	}
	if err := srv.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, b, "b", []byte("x"))
	if !bytes.Equal(get(t, b, "a"), random(100_000)) {
		t.Error("the object has changed")
	}
}

func BenchmarkBucket(b *testing.B) {
	srv := s3test.Start(b)
	bucket := open(b, config(srv.Endpoint(), "vol"))
	for _, mib := range []int{1, 32, 160} {
		data := random(mib << 20)
		b.Run(fmt.Sprintf("Put/%dMiB", mib), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				put(b, bucket, "x", data)
			}
		})
		b.Run(fmt.Sprintf("Get/%dMiB", mib), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				get(b, bucket, "x")
			}
		})
	}
	b.Run("Range/128KiB", func(b *testing.B) {
		o, err := bucket.Open(b.Context(), "x")
		if err != nil {
			b.Fatal(err)
		}
		p := make([]byte, 128<<10)
		b.SetBytes(int64(len(p)))
		for i := 0; b.Loop(); i++ {
			if _, err := o.ReadAt(b.Context(), p, int64(i%1000+1)*int64(len(p))); err != nil {
				b.Fatal(err)
			}
		}
	})
}
