package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"graphvol/agent/api"
	"graphvol/fs/hold"
)

const (
	// restartWait bounds how long a command waits for a mounted volume's server, which its holder may just be starting again.
	restartWait = 15 * time.Second
	dialPause   = 50 * time.Millisecond
	// maxMessage bounds one message. Lists are streams; only the catalogue is one message.
	maxMessage = 64 << 20
)

// Client is a connection to a volume's service: to the agent of the mounted volume, or, where that isn't mounted, to
// the same service in this process. Close it.
type Client struct {
	api.VolumeClient
	Place   Place
	Offline bool // served in this process

	closers []func() error // last first
}

// Close ends the connection; an offline service is closed with it.
func (c *Client) Close() error {
	var errs []error
	for i := len(c.closers) - 1; i >= 0; i-- {
		errs = append(errs, c.closers[i]())
	}
	c.closers = nil
	return errors.Join(errs...)
}

// Connect connects to a volume's service. stderr gets the log of an offline service if its file can't be written.
func Connect(ctx context.Context, p Place, stderr io.Writer) (*Client, error) {
	conn, err := dialLive(ctx, p)
	if err != nil {
		return nil, err
	}
	if conn == nil {
		return connectOffline(ctx, p, stderr)
	}
	c := &Client{Place: p}
	if err := c.attach(func(context.Context, string) (net.Conn, error) { return conn, nil }, func(ctx context.Context) (net.Conn, error) {
		return dial(ctx, p.State)
	}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// attach makes the gRPC client: the connection that was tried already is used first, later ones are dialled anew.
func (c *Client) attach(first func(context.Context, string) (net.Conn, error), again func(context.Context) (net.Conn, error)) error {
	used := make(chan struct{}, 1)
	cc, err := grpc.NewClient("passthrough:///volume",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			select {
			case used <- struct{}{}:
				return first(ctx, addr)
			default:
				return again(ctx)
			}
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
	)
	if err != nil {
		return fmt.Errorf("connect to the agent: %w", err)
	}
	c.VolumeClient = api.NewVolumeClient(cc)
	c.closers = append(c.closers, cc.Close)
	return nil
}

// dialLive connects to the agent's socket; nil, nil if the volume isn't mounted. While a mount exists and is not stale
// its server is there or about to come back.
func dialLive(ctx context.Context, p Place) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, restartWait)
	defer cancel()
	for {
		conn, err := dial(ctx, p.State)
		switch {
		case err == nil:
			return conn, nil
		case errors.Is(err, os.ErrPermission):
			return nil, &Error{codes.PermissionDenied, fmt.Sprintf("%s may not be used by this user; run graphvol as the user who mounted the volume, or as root", SocketPath(p.State)), err}
		case !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED) && ctx.Err() == nil:
			return nil, fmt.Errorf("connect to the volume's agent: %w", err)
		case !p.Mounted() || hold.Dead(ctx, p.Mount.Point):
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return nil, &Error{codes.Unavailable, fmt.Sprintf("the server of %s doesn't answer; see %s/log/agent.log, or unmount it (graphvol umount %s)", p.Mount.Point, p.State, p.Mount.Point), ctx.Err()}
		case <-time.After(dialPause):
		}
	}
}

// connectOffline opens the volume's repository in this process and serves it over a connection in memory.
func connectOffline(ctx context.Context, p Place, stderr io.Writer) (*Client, error) {
	if !IsState(p.State) {
		return nil, &Error{codes.FailedPrecondition, fmt.Sprintf("%s holds no volume; mount one first (graphvol mount BACKING MOUNT)", p.State), nil}
	}
	var w io.Writer = stderr
	c := &Client{Place: p, Offline: true}
	if lf, err := OpenLog(p.State, offlineLogName, stderr); err == nil {
		w = lf
		c.closers = append(c.closers, lf.Close)
	}
	svc, err := openOffline(ctx, p, NewLogger(w, slog.LevelInfo))
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.closers = append(c.closers, svc.Close)
	if err := c.serveHere(svc); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// serveHere connects to a service in this process, over a connection in memory.
func (c *Client) serveHere(svc api.VolumeServer) error {
	ln := bufconn.Listen(1 << 20)
	srv := newServer(svc)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	c.closers = append(c.closers, func() error { srv.Stop(); return <-done })
	dialMem := func(ctx context.Context) (net.Conn, error) { return ln.DialContext(ctx) }
	return c.attach(func(ctx context.Context, _ string) (net.Conn, error) { return dialMem(ctx) }, dialMem)
}

func newServer(svc api.VolumeServer) *grpc.Server {
	s := grpc.NewServer(grpc.MaxSendMsgSize(maxMessage))
	api.RegisterVolumeServer(s, svc)
	return s
}
