package hold

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// ProtocolVersion is that of the control messages. It grows only when an older peer could not go on.
const ProtocolVersion = 1

// maxMessage bounds a packet: the saved INIT request is the largest member, about 100 bytes.
const maxMessage = 16 << 10

// Operations of the control protocol; the package documentation tells who sends which.
const (
	opHello   = "hello"
	opStashed = "stashed"
	opStop    = "stop"
	opInit    = "init"
	opReady   = "ready"
	opFail    = "fail"
	opStash   = "stash"
	opUnstash = "unstash"
	opRestart = "restart"
	opPaused  = "paused"
	opPing    = "ping"
	opPong    = "pong"
	opUnmount = "unmount"
)

type message struct {
	Op         string      `json:"op"`
	Version    int         `json:"version,omitempty"`
	Takeover   bool        `json:"takeover,omitempty"`
	Mount      string      `json:"mount,omitempty"`
	Backing    string      `json:"backing,omitempty"`
	Init       []byte      `json:"init,omitempty"`
	Negotiated *negotiated `json:"negotiated,omitempty"`
	Count      int         `json:"count,omitempty"`
	Ino        uint64      `json:"ino,omitempty"`
	Seq        uint64      `json:"seq,omitempty"`
	Error      string      `json:"error,omitempty"`
	Path       string      `json:"path,omitempty"`
	Restart    *Restart    `json:"restart,omitempty"`

	file *os.File // sent or received beside the text
}

// socketpair gives the two ends of a control socket: one for this process, one to be inherited.
func socketpair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	remote := os.NewFile(uintptr(fds[1]), "control")
	local, err := connFrom(fds[0])
	if err != nil {
		remote.Close()
		return nil, nil, err
	}
	return local, remote, nil
}

// connFrom takes over a descriptor.
func connFrom(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "control")
	defer f.Close() // FileConn works on a duplicate
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("control socket: not a Unix socket")
	}
	return u, nil
}

func send(c *net.UnixConn, m message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var oob []byte
	if m.file != nil {
		oob = unix.UnixRights(int(m.file.Fd()))
	}
	if _, _, err := c.WriteMsgUnix(b, oob, nil); err != nil {
		return fmt.Errorf("control message %s: %w", m.Op, err)
	}
	return nil
}

// receive reads one packet; the caller owns its file. io.EOF or ECONNRESET when the peer has ended.
func receive(c *net.UnixConn) (message, error) {
	buf, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return message{}, err
	}
	m, err := decodeMessage(buf[:n])
	if err != nil {
		return m, err
	}
	if oobn > 0 {
		if m.file, err = fileFrom(oob[:oobn]); err != nil {
			return m, err
		}
	} else if flags&unix.MSG_CTRUNC != 0 {
		return m, fmt.Errorf("control message %s: its descriptor was lost, the limit of open files (ulimit -n) is reached", m.Op)
	}
	return m, nil
}

// errMessage marks a packet that can't be understood; the connection itself is fine.
var errMessage = errors.New("bad control message")

func decodeMessage(b []byte) (message, error) {
	var m message
	if err := json.Unmarshal(b, &m); err != nil {
		return message{}, fmt.Errorf("%w: %w", errMessage, err)
	}
	if m.Version > ProtocolVersion {
		return message{}, fmt.Errorf("%w: protocol version %d, this program knows %d: unmount and mount again instead of upgrading in place", errMessage, m.Version, ProtocolVersion)
	}
	return m, nil
}

func fileFrom(oob []byte) (*os.File, error) {
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for i := range cmsgs {
		fds, err := unix.ParseUnixRights(&cmsgs[i])
		if err != nil || len(fds) == 0 {
			continue
		}
		for _, extra := range fds[1:] {
			unix.Close(extra)
		}
		return os.NewFile(uintptr(fds[0]), "received"), nil
	}
	return nil, errors.New("no descriptor in the message")
}
