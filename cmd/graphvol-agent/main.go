// Command graphvol-agent is the daemon of a node. It is started by graphvol agent, and is a program of its own since volumes' servers must start fast: etcd is a third of it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"graphvol/agent"
	"graphvol/agent/config"
	"graphvol/agent/node"
)

// options are what graphvol agent passes on, as JSON in the only argument.
type options struct {
	Config  string   `json:"config"` // path
	Etcd    []string `json:"etcd"`   // URLs; none: the configuration's
	Program string   `json:"program"`
	Version string   `json:"version"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "graphvol: %s\n", agent.Message(err))
		os.Exit(1)
	}
}

func run(args []string) error {
	var o options
	if len(args) != 1 || json.Unmarshal([]byte(args[0]), &o) != nil {
		return errors.New("this program is started by graphvol agent")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	c, err := o.read()
	if err != nil {
		return err
	}
	err = node.Run(ctx, node.Options{
		Config: c, Self: o.Program, Version: o.Version,
		Ready:        func() { fmt.Println("the agent is ready") },
		CanStartAnew: func() error { _, err := o.read(); return err },
	})
	if errors.Is(err, node.ErrStartAnew) {
		err = unix.Exec("/proc/self/exe", os.Args, os.Environ()) // the same program, also if another was installed meanwhile
	}
	return err
}

// read gives the configuration as it is now.
func (o *options) read() (*config.File, error) {
	c, err := config.Read(o.Config)
	if err == nil && len(o.Etcd) > 0 {
		c.Etcd = config.Etcd{Endpoints: o.Etcd, TLS: c.Etcd.TLS}
	}
	return c, err
}
