// Package pgtest runs a PostgreSQL server for tests.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"graphvol/internal/leash"
)

// Superuser is the role that may everything. No role needs a password.
const Superuser = "postgres"

// Server is a running server, with a data directory of its own.
type Server struct {
	Dir string // its directory, where its socket is too

	bin  string
	as   *syscall.Credential // whom it runs as; nil: this process's user
	stop func()
}

// Start makes a server and ends it with the test. The test is skipped if the programs are missing.
func Start(t testing.TB) *Server {
	t.Helper()
	bin, err := find()
	if err != nil {
		t.Skip(err)
	}
	s := &Server{bin: bin}
	if s.as, err = credential(); err != nil {
		t.Skip(err)
	}
	// The path of a socket has 107 bytes at most, so this is no t.TempDir.
	if s.Dir, err = os.MkdirTemp("/tmp", "pgtest"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		if err := os.RemoveAll(s.Dir); err != nil {
			t.Error(err)
		}
	})
	if s.as != nil {
		if err := os.Chown(s.Dir, int(s.as.Uid), int(s.as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	initdb := s.command("initdb", "-D", s.data(), "-U", Superuser, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	s.Restart(t)
	return s
}

func (s *Server) data() string { return filepath.Join(s.Dir, "data") }

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	return cmd
}

// Restart starts a server that was stopped.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Stop()
	log, err := os.OpenFile(filepath.Join(s.Dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := s.command("postgres", "-D", s.data(), "-k", s.Dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=20")
	cmd.Stdout, cmd.Stderr = log, log
	ended, err := leash.Start(cmd, syscall.SIGQUIT) // which ends it at once, with its children
	if err != nil {
		t.Fatal(err)
	}
	s.stop = func() {
		_ = cmd.Process.Signal(syscall.SIGINT) // it doesn't wait for clients
		<-ended
	}
	if err := s.ready(t.Context(), ended); err != nil {
		said, _ := os.ReadFile(log.Name())
		t.Fatalf("PostgreSQL doesn't start: %v\n%s", err, said)
	}
}

// Stop ends the server. What is in it stays.
func (s *Server) Stop() {
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

func (s *Server) ready(ctx context.Context, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.DSN(Superuser))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-ended:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// DSN is the connection string of a role, to the database postgres.
func (s *Server) DSN(role string) string {
	return fmt.Sprintf("host=%s user=%s dbname=postgres", s.Dir, role)
}

// Exec runs statements as the superuser, in the database postgres.
func (s *Server) Exec(t testing.TB, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.DSN(Superuser))
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(t.Context(), sql)
	if err = errors.Join(err, conn.Close(t.Context())); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Shell runs a command as somebody does who may everything in the server, with its programs in PATH.
func (s *Server) Shell(t testing.TB, command string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", command)
	cmd.Env = append(os.Environ(), "PGUSER="+Superuser, "PATH="+s.bin+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// Access replaces the lines of pg_hba.conf, which say who may connect how. The superuser always may.
func (s *Server) Access(t testing.TB, lines ...string) {
	t.Helper()
	text := strings.Join(append([]string{"local all " + Superuser + " trust"}, lines...), "\n") + "\n"
	if err := os.WriteFile(filepath.Join(s.data(), "pg_hba.conf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Restart(t) // a reload is done some time later
}

// find gives the directory of the server's programs: the one in PATH, or else Debian's newest.
func find() (string, error) {
	if p, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(p), nil
	}
	all, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(all) == 0 {
		return "", errors.Join(errors.New("no PostgreSQL to test with: install the package postgresql"), err)
	}
	newest := all[0]
	for _, p := range all[1:] {
		if release(p) > release(newest) {
			newest = p
		}
	}
	return filepath.Dir(newest), nil
}

func release(initdb string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(initdb)))) // 0 for those before 10, which are not whole numbers
	return n
}

// credential is whom to run the server as: it refuses root.
func credential() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
		if err == nil && gerr == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("no PostgreSQL to test with: it can't run as root, and there is no user postgres or nobody")
}
