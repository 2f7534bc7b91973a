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
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"graphvol/agent/api"
	"graphvol/agent/traceid"
	"graphvol/fs/hold"
)

const (
	// restartWait bounds how long a command waits for a mounted volume's server, which its holder may just be starting again.
	restartWait = 15 * time.Second
	dialPause   = 50 * time.Millisecond
	// answerWait bounds one attempt: a server that lives answers at once, however busy it is.
	answerWait = 5 * time.Second
	// maxMessage bounds one message. Lists are streams; only the catalogue is one message.
	maxMessage = 64 << 20
)

// Client is a connection to a volume's service: to the agent of the mounted volume, or, where that isn't mounted, to
// the same service in this process. Close it.
type Client struct {
	api.VolumeClient
	Place   Place
	Offline bool // served in this process

	conn    *grpc.ClientConn
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
//
// While a mount exists and is not stale its server is there, or about to be started again by its holder: Connect waits for it, for
// some seconds. A request whose connection is lost later fails with Unavailable, and words for it; those that only ask are repeated.
func Connect(ctx context.Context, p Place, stderr io.Writer) (*Client, error) {
	wait, cancel := context.WithTimeout(ctx, restartWait)
	defer cancel()
	for {
		c, err := connectLive(wait, p)
		if c != nil || err != nil && ctx.Err() == nil && wait.Err() == nil {
			return c, err
		}
		if err == nil && (!p.Mounted() || hold.Dead(wait, p.Mount.Point)) {
			return connectOffline(ctx, p, stderr)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-wait.Done():
			return nil, &Error{codes.Unavailable, fmt.Sprintf("the server of %s doesn't answer; see %s/log/agent.log, or unmount it (graphvol umount %s)", p.Mount.Point, p.State, p.Mount.Point), err}
		case <-time.After(dialPause):
		}
	}
}

// connectLive connects to the agent's socket; nil, nil if nobody answers there at the moment.
func connectLive(ctx context.Context, p Place) (*Client, error) {
	conn, err := dialSocket(ctx, p.State)
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil, &Error{codes.PermissionDenied, fmt.Sprintf("%s may not be used by this user; run graphvol as the user who mounted the volume, or as root", SocketPath(p.State)), err}
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EAGAIN):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("connect to the volume's agent: %w", err)
	}
	conn.Close()
	c := &Client{Place: p}
	if err := c.attach(func(ctx context.Context, _ string) (net.Conn, error) { return dialSocket(ctx, p.State) }); err != nil {
		return nil, err
	}
	// A server that has just died accepts connections that nobody will ever answer.
	if !c.ready(ctx) {
		return nil, c.Close()
	}
	return c, nil
}

// ready waits until the other side has answered; false if this attempt to connect has failed.
func (c *Client) ready(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	c.conn.Connect()
	for state := c.conn.GetState(); state != connectivity.Ready; state = c.conn.GetState() {
		if state == connectivity.TransientFailure || state == connectivity.Shutdown || !c.conn.WaitForStateChange(ctx, state) {
			return false
		}
	}
	return true
}

// retries repeats requests that change nothing if the connection is lost before the answer has begun.
const retries = `{"methodConfig": [{
	"name": [
		{"service": "graphvol.v1.Volume", "method": "ListSnapshots"}, {"service": "graphvol.v1.Volume", "method": "GetSnapshot"},
		{"service": "graphvol.v1.Volume", "method": "Dirty"}, {"service": "graphvol.v1.Volume", "method": "Diff"},
		{"service": "graphvol.v1.Volume", "method": "Status"}
	],
	"retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 3, "retryableStatusCodes": ["UNAVAILABLE"]}
}]}`

// attach makes the gRPC client. Nothing is connected yet.
func (c *Client) attach(dial func(ctx context.Context, addr string) (net.Conn, error)) error {
	cc, err := grpc.NewClient("passthrough:///volume",
		traceid.DialOption(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(dial),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: dialPause, Multiplier: 1.5, MaxDelay: time.Second}, MinConnectTimeout: answerWait}),
		grpc.WithDefaultServiceConfig(retries),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return lost(invoke(ctx, method, req, reply, cc, opts...))
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			s, err := open(ctx, desc, cc, method, opts...)
			return lostStream{s}, lost(err)
		}),
	)
	if err != nil {
		return fmt.Errorf("connect to the agent: %w", err)
	}
	c.conn = cc
	c.VolumeClient = api.NewVolumeClient(cc)
	c.closers = append(c.closers, cc.Close)
	return nil
}

// lost puts the loss of a connection into words. The service itself never answers Unavailable.
func lost(err error) error {
	if status.Code(err) != codes.Unavailable {
		return err
	}
	return &Error{codes.Unavailable, "the volume's server ended while it worked on this, and is started again by itself: graphvol snapshots tells what is done; then try again", err}
}

// lostStream is a stream with such words.
type lostStream struct{ grpc.ClientStream }

func (s lostStream) SendMsg(m any) error { return lost(s.ClientStream.SendMsg(m)) }
func (s lostStream) RecvMsg(m any) error { return lost(s.ClientStream.RecvMsg(m)) }

// connectOffline opens the volume's repository in this process and serves it over a connection in memory.
func connectOffline(ctx context.Context, p Place, stderr io.Writer) (*Client, error) {
	if p.Mounted() && isStoreCache(p.State) {
		return nil, refuse(codes.FailedPrecondition, fmt.Sprintf("the server of the store mounted at %s has died: unmount it (graphvol umount %s), then mount it again (graphvol mount-store)", p.Mount.Point, p.Mount.Point))
	}
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
	return c.attach(func(ctx context.Context, _ string) (net.Conn, error) { return ln.DialContext(ctx) })
}

func newServer(svc api.VolumeServer, opts ...grpc.ServerOption) *grpc.Server {
	s := grpc.NewServer(append(opts, traceid.ServerOption(), grpc.MaxSendMsgSize(maxMessage))...)
	api.RegisterVolumeServer(s, svc)
	return s
}
