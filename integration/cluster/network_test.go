package cluster

import (
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"graphvol/integration/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// network makes one, or skips the test where that can't be done.
func network(t testing.TB, n int) *Network {
	t.Helper()
	net, err := NewNetwork(n)
	if err != nil {
		t.Skipf("needs network namespaces, as root has them, and iproute2: %v", err)
	}
	t.Cleanup(func() {
		if err := net.Close(); err != nil {
			t.Error(err)
		}
	})
	return net
}

// hears tells whether a packet from one node reaches another in time.
func hears(t *testing.T, n *Network, from, to int, limit time.Duration) bool {
	t.Helper()
	var in net.PacketConn
	err := n.nodes[to].do(func() (err error) {
		in, err = net.ListenPacket("udp4", n.Host(to)+":0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	err = n.nodes[from].do(func() error {
		out, err := net.Dial("udp4", in.LocalAddr().String())
		if err != nil {
			return err
		}
		defer out.Close()
		_, err = out.Write([]byte("hello"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	in.SetReadDeadline(time.Now().Add(limit))
	_, _, err = in.ReadFrom(make([]byte, 10))
	return err == nil
}

// TestNetwork: nodes reach each other, but for those that are cut off.
func TestNetwork(t *testing.T) {
	t.Parallel()
	n := network(t, 3)
	check := func(what string, lost ...[2]int) {
		t.Helper()
		for from := range 3 {
			for to := range 3 {
				want, limit := true, 5*time.Second
				if slices.Contains(lost, [2]int{from, to}) {
					want, limit = false, 100*time.Millisecond
				}
				if from != to && hears(t, n, from, to, limit) != want {
					t.Errorf("%s: from node %d to node %d: %v, want %v", what, from, to, !want, want)
				}
			}
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check("whole")
	must(n.Drop(0, 1))
	check("one way", [2]int{0, 1})
	must(n.Heal())
	check("healed")
	must(n.Isolate(2))
	check("isolated", [2]int{0, 2}, [2]int{1, 2}, [2]int{2, 0}, [2]int{2, 1})
	must(n.Heal())
	check("healed again")
}
