package cluster

import (
	"net"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"graphvol/integration/rig"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(etcdVariable); text != "" {
		os.Exit(beEtcd(text))
	}
	os.Exit(rig.Main(m))
}

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

// needTAP skips what needs Network.Slow, where that can't be.
func needTAP(t testing.TB) {
	t.Helper()
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("needs TAP devices: %v", err)
	}
}

// hears tells whether a packet from one node reaches another in time.
func hears(t *testing.T, n *Network, from, to int, limit time.Duration) bool {
	t.Helper()
	return travel(t, n, from, to, limit) < limit
}

// travel tells how long a packet takes from one node to another, up to a limit.
func travel(t *testing.T, n *Network, from, to int, limit time.Duration) time.Duration {
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
	sent := time.Now()
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
	in.SetReadDeadline(sent.Add(limit))
	if _, _, err = in.ReadFrom(make([]byte, 10)); err != nil {
		return limit
	}
	return time.Since(sent)
}

// reach fails the test unless all nodes hear each other, but for some ways.
func reach(t *testing.T, n *Network, what string, lost ...[2]int) {
	t.Helper()
	for from := range n.nodes {
		for to := range n.nodes {
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

// TestNetwork: nodes reach each other, but for those that are cut off or dead.
func TestNetwork(t *testing.T) {
	t.Parallel()
	n := network(t, 3)
	check := func(what string, lost ...[2]int) { t.Helper(); reach(t, n, what, lost...) }
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
	running := exec.Command("sleep", "600")
	must(n.Start(1, running))
	must(n.Kill(1))
	if err := running.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("a process on a node that was killed: %v", err)
	}
	check("killed", [2]int{1, 0}, [2]int{1, 2}, [2]int{0, 1}, [2]int{2, 1})
	must(n.Heal())
	check("rebooted")
}

// TestSlow: what is sent from and to a slow node takes its time, and nothing else does.
func TestSlow(t *testing.T) {
	t.Parallel()
	needTAP(t)
	n := network(t, 3)
	const delay = 300 * time.Millisecond
	slow := func(from, to int, want bool) {
		t.Helper()
		best := time.Minute
		for range 3 { // the first has to find the way
			best = min(best, travel(t, n, from, to, 10*time.Second))
		}
		if best >= delay != want || best > 3*delay {
			t.Errorf("from node %d to node %d it takes %v", from, to, best)
		}
	}
	if err := n.Slow(2, delay); err != nil {
		t.Fatal(err)
	}
	slow(0, 2, true)
	slow(2, 1, true)
	slow(0, 1, false)
	if err := n.Heal(); err != nil {
		t.Fatal(err)
	}
	slow(0, 2, false)
	reach(t, n, "fast again")
}
