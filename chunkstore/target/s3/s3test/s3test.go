// Package s3test runs an S3 server for tests: versitygw, which keeps objects as files of a directory.
package s3test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"graphvol/internal/freeport"
	"graphvol/internal/leash"
)

const (
	accessKey = "graphvol-test"
	secretKey = "graphvol-test-secret"
	// Bucket is there when a server has started.
	Bucket = "graphvol-test"
)

// Server is a running server.
type Server struct {
	Addr string // host:port; it speaks http
	Root string // the directory with the buckets

	program string
	kill    func()
}

// Start starts a server with an empty bucket, and ends it with the test. The environment gets the server's keys, and no others.
// The test is skipped if there is no such program and it can't be installed.
func Start(t testing.TB) *Server {
	t.Helper()
	program, err := find(t.Context())
	if err != nil {
		t.Skipf("no S3 server to test with: %v", err)
	}
	Credentials(t)
	s, err := launch(t.Context(), program, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// Launch is Start for programs that aren't tests: with the server's directory, and an environment that the caller sets, see Environ. Stop ends it.
func Launch(ctx context.Context, root string) (*Server, error) {
	program, err := find(ctx)
	if err != nil {
		return nil, fmt.Errorf("no S3 server: %w", err)
	}
	return launch(ctx, program, root)
}

func launch(ctx context.Context, program, root string) (s *Server, err error) {
	s = &Server{Root: root, program: program}
	if err := os.Mkdir(filepath.Join(s.Root, Bucket), 0o700); err != nil {
		return nil, err
	}
	// Between finding a free port and using it somebody else may take it.
	for range 5 {
		port, perr := freeport.Take()
		if perr != nil {
			return nil, perr
		}
		s.Addr = fmt.Sprintf("127.0.0.1:%d", port)
		if err = s.Restart(ctx); err == nil {
			return s, nil
		}
	}
	return nil, err
}

// Credentials sets the environment's keys to those of the servers of this package, and hides all others from the test.
func Credentials(t testing.TB) {
	for name, value := range Environ(filepath.Join(t.TempDir(), "none")) {
		t.Setenv(name, value)
	}
}

// Environ is the environment of programs that use the servers of this package; none is the name of a file that isn't there.
func Environ(none string) map[string]string {
	return map[string]string{
		"AWS_ACCESS_KEY_ID": accessKey, "AWS_SECRET_ACCESS_KEY": secretKey, "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "",
		"AWS_ACCESS_KEY": "", "AWS_SECRET_KEY": "", "MINIO_ROOT_USER": "", "MINIO_ROOT_PASSWORD": "", "MINIO_ACCESS_KEY": "", "MINIO_SECRET_KEY": "",
		"AWS_SHARED_CREDENTIALS_FILE": none, "AWS_CONFIG_FILE": none, "AWS_EC2_METADATA_DISABLED": "true",
	}
}

// Keys returns the access key and the secret key.
func Keys() (access, secret string) { return accessKey, secretKey }

// Endpoint is the server's URL.
func (s *Server) Endpoint() string { return "http://" + s.Addr }

// URL names the target below a prefix of the bucket, as graphvol's commands take it.
func (s *Server) URL(prefix string) string {
	return "s3://" + Bucket + "/" + prefix + "?endpoint=" + s.Endpoint() + "&insecure=1"
}

// File returns the file that holds an object.
func (s *Server) File(key string) string {
	return filepath.Join(s.Root, Bucket, filepath.FromSlash(key))
}

// Stop kills the server; its objects stay.
func (s *Server) Stop() {
	if s.kill != nil {
		s.kill()
		s.kill = nil
	}
}

// Restart starts a server that was stopped, at the same address and with the objects that it had.
func (s *Server) Restart(ctx context.Context) error {
	out, err := os.CreateTemp(s.Root, ".log")
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(s.program, "--port", s.Addr, "--keep-alive", "--health", "/health", "--quiet", "posix", s.Root)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+accessKey, "ROOT_SECRET_KEY="+secretKey)
	cmd.Stdout, cmd.Stderr = out, out
	ended, err := leash.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return err
	}
	s.kill = func() {
		_ = cmd.Process.Kill()
		<-ended
	}
	if err := s.wait(ctx, ended); err != nil {
		s.Stop()
		log, _ := os.ReadFile(out.Name())
		return fmt.Errorf("%s: %w: %s", s.program, err, log)
	}
	return nil
}

// wait returns when the server answers.
func (s *Server) wait(ctx context.Context, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint()+"/health", nil)
		if err != nil {
			return err
		}
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ended:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// find returns the program: GRAPHVOL_VERSITYGW, or the one that the Makefile installs, and does so if it must.
func find(ctx context.Context) (string, error) {
	if p := os.Getenv("GRAPHVOL_VERSITYGW"); p != "" {
		_, err := os.Stat(p)
		return p, err
	}
	root, err := output(exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "graphvol"))
	if err != nil {
		return "", err
	}
	// The tests of several packages may be here at the same time.
	lock, err := os.Open(root)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "make", "--silent", "--no-print-directory", "-C", root, "versitygw")
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); !strings.HasPrefix(name, "MAKE") && name != "MFLAGS" { // of a make that runs the tests
			cmd.Env = append(cmd.Env, e)
		}
	}
	return output(cmd)
}

// output returns the last line that a command prints.
func output(cmd *exec.Cmd) (string, error) {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, &stderr)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1], nil
}
