package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// inFlight is how many frames are on a wire at once, each way. More are lost.
const inFlight = 4096

// wire is a long way from a node to the others. Frames are copied between two TAP devices, each when its time has come:
//
//	br0 ── fast0 ═ this process ═ slow0 ── far0, a bridge ── node0
//
// Frames on a TAP device are whole, with their checksums: what veth leaves to the other end is done before.
type wire struct {
	ends    [2]*os.File
	copying sync.WaitGroup
}

// frame is one on its way.
type frame struct {
	due  time.Time
	data []byte
}

// Slow has all that a node sends and all that it gets take so long, until Heal or another Slow.
func (n *Network) Slow(i int, delay time.Duration) error {
	if err := n.fast(i); err != nil {
		return err
	}
	w := &wire{}
	n.wires[i] = w
	for end, name := range []string{"fast", "slow"} {
		f, err := n.hub.tap(fmt.Sprint(name, i))
		if err != nil {
			return fmt.Errorf("a slow link: %w", err)
		}
		w.ends[end] = f
	}
	w.carry(w.ends[0], w.ends[1], delay)
	w.carry(w.ends[1], w.ends[0], delay)
	return n.hub.ip(
		fmt.Sprintf("link add far%d type bridge", i), fmt.Sprintf("link set far%d up", i),
		fmt.Sprintf("link set slow%d master far%d up", i, i), fmt.Sprintf("link set fast%d master br0 up", i),
		fmt.Sprintf("link set %s master far%d", port(i), i))
}

// fast undoes Slow. The devices are gone with their descriptors.
func (n *Network) fast(i int) error {
	w := n.wires[i]
	if w == nil {
		return nil
	}
	delete(n.wires, i)
	return errors.Join(w.close(), n.hub.ip("link set "+port(i)+" master br0", fmt.Sprintf("link del far%d", i)))
}

func (w *wire) close() (err error) {
	for _, f := range w.ends {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	w.copying.Wait()
	return err
}

// carry copies frames one way until an end is closed.
func (w *wire) carry(from, to *os.File, delay time.Duration) {
	flying := make(chan frame, inFlight)
	w.copying.Go(func() {
		defer close(flying)
		for p := make([]byte, 1<<16); ; {
			n, err := from.Read(p)
			if err != nil {
				return
			}
			select {
			case flying <- frame{time.Now().Add(delay), bytes.Clone(p[:n])}:
			default:
			}
		}
	})
	w.copying.Go(func() {
		for f := range flying {
			time.Sleep(time.Until(f.due))
			_, _ = to.Write(f.data) // one that isn't taken is lost
		}
	})
}

// tap makes a TAP device in the namespace.
func (ns *namespace) tap(name string) (f *os.File, err error) {
	err = ns.do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		req, err := unix.NewIfreq(name)
		if err == nil {
			req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("make the TAP device %s: %w", name, err), unix.Close(fd))
		}
		f = os.NewFile(uintptr(fd), name) // not before: the poller wants the device
		return nil
	})
	return f, err
}
