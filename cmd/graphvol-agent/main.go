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
	c, err := config.Read(o.Config)
	if err != nil {
		return err
	}
	if len(o.Etcd) > 0 {
		c.Etcd = config.Etcd{Endpoints: o.Etcd, TLS: c.Etcd.TLS}
	}
	return node.Run(ctx, node.Options{Config: c, Self: o.Program, Version: o.Version, Ready: func() { fmt.Println("the agent is ready") }})
}
