package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxSocketPath is what fits into sockaddr_un with its final zero byte.
const maxSocketPath = 107

// SocketPath is where the agent of the volume with this state directory listens.
func SocketPath(state string) string { return filepath.Join(state, "socket") }

// listen makes STATE/socket with mode 0600. The caller owns the state directory (it holds the index's lock), so a
// socket that is already there belongs to a dead agent and is replaced.
func listen(state string) (net.Listener, error) {
	path, done, err := shortPath(state)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := os.Remove(SocketPath(state)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket of an earlier agent: %w", err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", SocketPath(state), err)
	}
	// The directory is 0700, so nobody can have connected before this.
	if err := os.Chmod(SocketPath(state), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect the socket: %w", err), ln.Close())
	}
	// A path through /proc means nothing when the listener is closed.
	ln.SetUnlinkOnClose(false)
	return ln, nil
}

// dialSocket connects to STATE/socket.
func dialSocket(ctx context.Context, state string) (net.Conn, error) {
	path, done, err := shortPath(state)
	if err != nil {
		return nil, err
	}
	defer done()
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}

// shortPath names the socket by a path that fits into a socket address: where STATE is too long, through an open
// descriptor of it. done may be called as soon as the address was used.
func shortPath(state string) (path string, done func(), err error) {
	if path = SocketPath(state); len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	fd, err := unix.Open(state, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("open %s: %w", state, err)
	}
	return fmt.Sprintf("/proc/thread-self/fd/%d/socket", fd), func() { unix.Close(fd) }, nil
}
