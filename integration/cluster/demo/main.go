// Command demo shows snapshots over three nodes: each has an agent and a volume in a network namespace of its own. Clients write numbers to one node and then to another, while two snapshots of
// the cluster are taken; a node is cut off, so that a third one fails and leaves nothing; the second one is restored and compared. It prints what each step cost, and ends with one line that sums
// it up.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"graphvol/integration/cluster"
)

// bound is how long the whole demo may take.
const bound = 5 * time.Minute

func main() {
	bin := flag.String("bin", "bin/graphvol", "the graphvol binary")
	size := flag.Int("mib", 64, "data of each node")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ctx, cancel := context.WithTimeout(ctx, bound)
	sum, err := run(ctx, *bin, *size<<20)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo failed:", err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(sum); err != nil || !sum.good() {
		os.Exit(1)
	}
}

// summary is the last line.
type summary struct {
	Snapshots  int     `json:"snapshots"`
	Complete   int     `json:"complete"`
	MaxHoldMS  float64 `json:"max_hold_ms"`
	Violations int     `json:"order_violations"`
	Equal      bool    `json:"restored_equal"`
}

func (s *summary) good() bool { return s.Complete == s.Snapshots && s.Violations == 0 && s.Equal }

func run(ctx context.Context, bin string, size int) (sum *summary, err error) {
	bin, err = filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "graphvol-cluster-demo")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	net, err := cluster.NewNetwork(3)
	if err != nil {
		fmt.Printf("all nodes are on the loopback interface, as there can't be others here (%v)\n", err)
		net = cluster.Loopback()
	}
	defer net.Close()
	c, err := cluster.New(ctx, cluster.Options{Bin: bin, Dir: dir, Net: net, Timeout: 5 * time.Second})
	if err != nil {
		return nil, err
	}
	d := &demo{Cluster: c, size: size, sum: &summary{}}
	defer func() { err = errors.Join(err, d.end()) }()
	for _, step := range []func(context.Context) error{d.start, d.fill, d.write, d.first, d.change, d.second, d.cut, d.heal, d.restore} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return d.sum, nil
}

// step prints one line: what was done, how long it took, and a remark.
func step(begun time.Time, what, remark string, args ...any) {
	fmt.Printf("%-52s %8s  %s\n", what, time.Since(begun).Round(time.Millisecond), fmt.Sprintf(remark, args...))
}
