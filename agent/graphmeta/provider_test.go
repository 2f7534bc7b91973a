package graphmeta

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"graphvol/agent/config"
	"graphvol/internal/postgres"
	"graphvol/internal/postgres/pgtest"
)

func read(t *testing.T, m config.Metadata) (*Meta, error) {
	t.Helper()
	p, err := Open(m)
	if err != nil {
		t.Fatal(err)
	}
	return p.Read(t.Context())
}

// wants fails unless the error is one line with these words.
func wants(t *testing.T, err error, words string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v, want %q", err, words)
	}
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "graph.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpen(t *testing.T) {
	if _, err := Open(config.Metadata{}); err == nil {
		t.Error("opened without anything to read")
	}
}

func TestCommand(t *testing.T) {
	m, err := read(t, config.Metadata{Command: []string{"/bin/cat", file(t, whole)}})
	if err != nil || m.Digest() != digest {
		t.Errorf("%+v, %v", m, err)
	}
	sh := func(script string) []string { return []string{"/bin/sh", "-c", script} }
	_, err = read(t, config.Metadata{Command: sh("echo cannot reach graphd >&2; exit 2")})
	wants(t, err, "the graph's metadata can't be read: /bin/sh failed: exit status 2: cannot reach graphd")
	_, err = read(t, config.Metadata{Command: sh("sleep 1000"), Timeout: 100 * time.Millisecond})
	wants(t, err, "/bin/sh did not end within 100ms, and was killed")
	_, err = read(t, config.Metadata{Command: sh("yes")})
	wants(t, err, "prints more than 16777216 bytes")
	_, err = read(t, config.Metadata{Command: sh("echo '{'")})
	wants(t, err, "the graph's metadata from /bin/sh is not as it must be: line 2: unexpected end of JSON input")
	m, err = read(t, config.Metadata{Command: sh(`echo '{"version": "1", "in_progress": "balance 12"}'`)})
	if !errors.Is(err, ErrInProgress) || m != nil {
		t.Errorf("%+v, %v", m, err)
	}
	wants(t, err, "balance 12")
}

func TestFile(t *testing.T) {
	path := file(t, whole)
	m, err := read(t, config.Metadata{File: path})
	if err != nil || m.Digest() != digest {
		t.Errorf("%+v, %v", m, err)
	}
	_, err = read(t, config.Metadata{File: filepath.Join(filepath.Dir(path), "none")})
	wants(t, err, "none: no such file or directory")
	_, err = read(t, config.Metadata{File: filepath.Dir(path)})
	wants(t, err, "is no regular file")
	pipe := filepath.Join(filepath.Dir(path), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = read(t, config.Metadata{File: pipe})
	wants(t, err, "is no regular file")
	_, err = read(t, config.Metadata{File: file(t, strings.Repeat(" ", MaxLength+100))})
	wants(t, err, "it has more than 16777216 bytes")
	_, err = read(t, config.Metadata{File: file(t, "{}")})
	wants(t, err, "graph.json is not as it must be: version is missing")
}

// hung is a filesystem with one file, which can't be opened until it is released.
type hung struct {
	fs.Inode
	release chan struct{}
}

func (h *hung) Lookup(ctx context.Context, _ string, _ *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return h.NewInode(ctx, &hung{release: h.release}, fs.StableAttr{Mode: syscall.S_IFREG}), 0
}

func (h *hung) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	<-h.release
	return nil, 0, syscall.EIO
}

func TestFileOnHungMount(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no /dev/fuse:", err)
	}
	root := &hung{release: make(chan struct{})}
	dir := t.TempDir()
	server, err := fs.Mount(dir, root, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = read(t, config.Metadata{File: filepath.Join(dir, "graph.json"), Timeout: 100 * time.Millisecond})
	wants(t, err, "wasn't read within 100ms: its disk, or what is mounted there, doesn't answer")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p, err := Open(config.Metadata{File: filepath.Join(dir, "graph.json")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Read(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that it was cancelled", err)
	}
	close(root.release)
	if err := server.Unmount(); err != nil {
		t.Error(err)
	}
}

// TestPostgres reads a graph from tables, as docs/cluster.md shows it, and mends what is refused.
func TestPostgres(t *testing.T) {
	s := pgtest.Start(t)
	s.Exec(t, `CREATE TABLE types (kind text, name text); INSERT INTO types VALUES ('vertex', 'Person'), ('vertex', 'City'), ('edge', 'knows');
		CREATE TABLE partitions (id int, node text); INSERT INTO partitions VALUES (1, 'b'), (1, 'a'), (2, 'a');
		CREATE TABLE graph (version int, job text); INSERT INTO graph VALUES (17, NULL); CREATE ROLE backup LOGIN`)
	m := config.Metadata{Postgres: &config.Postgres{DSN: s.DSN("backup"), Query: `
		SELECT json_build_object('version', version::text, 'in_progress', job,
			'vertex_types', (SELECT json_agg(name) FROM types WHERE kind = 'vertex'), 'edge_types', (SELECT json_agg(name) FROM types WHERE kind = 'edge'),
			'partitions', (SELECT json_object_agg(id, nodes) FROM (SELECT id, json_agg(node) AS nodes FROM partitions GROUP BY id) AS p))
		FROM graph`}}
	for range 3 {
		_, err := read(t, m)
		wants(t, err, "the graph's metadata can't be read: PostgreSQL at "+s.Dir+"/.s.PGSQL.5432 refuses the query: permission denied for table ")
		wants(t, err, "; to mend it: GRANT SELECT ON public.")
		if e := new(postgres.Error); errors.As(err, &e) {
			s.Exec(t, e.Fix)
		}
	}
	got, err := read(t, m)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"edge_types":["knows"],"partitions":{"1":["a","b"],"2":["a"]},"version":"17","vertex_types":["City","Person"]}`; string(got.Encode()) != want {
		t.Errorf("%s, want %s", got.Encode(), want)
	}
	s.Exec(t, "UPDATE graph SET job = 'ALTER TABLE person'")
	if _, err := read(t, m); !errors.Is(err, ErrInProgress) {
		t.Errorf("%v, want that something is in progress", err)
	}
	s.Exec(t, "UPDATE graph SET job = NULL, version = 18")
	after, err := read(t, m)
	if err != nil || Compare(got, after) != "version was 17 and is 18" {
		t.Errorf("%+v, %v", after, err)
	}
	s.Exec(t, "DELETE FROM graph")
	_, err = read(t, m)
	wants(t, err, "the query gives no row")
	locked(t, s, m)
	s.Stop()
	_, err = read(t, m)
	wants(t, err, "can't be reached: connect: no such file or directory; to mend it: start it")
	for _, dsn := range []string{"port=many", "postgres://h:many/"} {
		_, err = read(t, config.Metadata{Postgres: &config.Postgres{DSN: dsn, Query: "SELECT 1"}})
		wants(t, err, "the graph's metadata can't be read: the dsn can't be used: ")
	}
}

// locked has somebody who alters a table for long.
func locked(t *testing.T, s *pgtest.Server, m config.Metadata) {
	t.Helper()
	c, err := postgres.Connect(t.Context(), s.DSN(pgtest.Superuser))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, sql := range []string{"BEGIN", "ALTER TABLE graph ADD COLUMN more text"} {
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	m.Timeout = 300 * time.Millisecond
	_, err = read(t, m)
	wants(t, err, fmt.Sprintf("PostgreSQL at %s/.s.PGSQL.5432 didn't answer the query in time", s.Dir))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want that the time is over", err)
	}
}
