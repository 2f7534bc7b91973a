package graphmeta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/agent/config"
	"graphvol/internal/command"
	"graphvol/internal/postgres"
)

// DefaultTimeout is how long reading may take if the configuration says nothing.
const DefaultTimeout = 10 * time.Second

// Provider reads what the graph is.
type Provider interface {
	// Read reads it now, within the configured time and ctx, and three seconds more at most, to end what doesn't end. A graph that is being changed is an ErrInProgress. All errors are
	// one line that says where it comes from, and what to do if that is known. What was started for it is gone when Read returns, except where a disk or a network doesn't answer.
	Read(ctx context.Context) (*Meta, error)
}

// Open gives the provider of a configuration that config.Parse has taken, and in which there is one. It reads nothing yet.
func Open(m config.Metadata) (Provider, error) {
	p := &provider{timeout: m.Timeout}
	if p.timeout == 0 {
		p.timeout = DefaultTimeout
	}
	switch {
	case len(m.Command) > 0:
		p.from, p.read = m.Command[0], func(ctx context.Context) ([]byte, error) {
			return command.Output(ctx, m.Command, p.timeout, MaxLength)
		}
	case m.File != "":
		p.from, p.read = m.File, func(ctx context.Context) ([]byte, error) {
			return readFile(ctx, m.File, p.timeout)
		}
	case m.Postgres != nil:
		pg := *m.Postgres
		p.from, p.read = "PostgreSQL", func(ctx context.Context) ([]byte, error) {
			return readPostgres(ctx, pg.DSN, pg.Query, p.timeout)
		}
	default:
		return nil, errors.New("metadata: one of command, file and postgres is needed")
	}
	return p, nil
}

type provider struct {
	from    string
	timeout time.Duration
	read    func(context.Context) ([]byte, error)
}

func (p *provider) Read(ctx context.Context) (*Meta, error) {
	text, err := p.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("the graph's metadata can't be read: %w", err)
	}
	m, err := Decode(text)
	if err != nil {
		return nil, fmt.Errorf("the graph's metadata from %s is not as it must be: %w", p.from, err)
	}
	if err := m.Quiet(); err != nil {
		return nil, err
	}
	return m, nil
}

// readFile doesn't wait for a disk, or a mount, that doesn't answer.
func readFile(ctx context.Context, path string, timeout time.Duration) ([]byte, error) {
	type result struct {
		text []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := readRegular(path)
		done <- result{text, err}
	}()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.text, r.err
	case <-timer.C:
		return nil, fmt.Errorf("%s wasn't read within %s: its disk, or what is mounted there, doesn't answer", path, timeout)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func readRegular(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would wait for somebody who writes
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	return io.ReadAll(io.LimitReader(f, MaxLength+1)) // Decode refuses what is longer
}

func readPostgres(ctx context.Context, dsn, query string, timeout time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := postgres.Connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Value(ctx, query)
}
