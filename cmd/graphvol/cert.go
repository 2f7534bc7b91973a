package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"graphvol/agent/pki"
)

const day = 24 * time.Hour

func (a *app) certCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Make the certificates of a cluster's nodes",
		Long: `The nodes of a cluster, and who asks them from elsewhere, know each other by certificates of
one CA. DIR is where that and all certificates are made: keep it off the nodes, and ca.key
secret, as whoever has it can pass for any node. Each node gets ca.crt, its own certificate
and its own key, named under node: tls: in graphvol.yaml.

Files that are there already are never overwritten. To renew a certificate, move its two
files away, make it anew, and put both in the place of the old ones on the node: its agent
takes them without a restart. docs/cluster.md has more.`,
		Example: `  graphvol cert ca ~/graph-ca
  graphvol cert node ~/graph-ca a --host 10.1.0.1 --host a.example.com
  graphvol cert operator ~/graph-ca eve`,
		Args: func(cmd *cobra.Command, args []string) error {
			return usageError{errors.New("choose one of the commands below cert")}
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	cmd.AddCommand(a.certCACmd(), a.certNodeCmd(), a.certOperatorCmd())
	return cmd
}

func (a *app) certCACmd() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "ca DIR",
		Short: "Make a cluster's CA",
		Long: `Makes DIR/ca.crt and DIR/ca.key, valid for ten years. Every node gets ca.crt; nobody but who
makes certificates gets ca.key.`,
		Example: `  graphvol cert ca ~/graph-ca`,
		Args:    args(cobra.ExactArgs(1), "one DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := pki.MakeCA(args[0], name)
			return a.made(p, err)
		},
	}
	cmd.Flags().StringVar(&name, "name", "graphvol", "the cluster's name, for people")
	return cmd
}

func (a *app) certNodeCmd() *cobra.Command {
	var hosts []string
	var days int
	cmd := &cobra.Command{
		Use:   "node DIR NAME",
		Short: "Make a node's certificate",
		Long: `Makes DIR/NAME.crt and DIR/NAME.key with the CA in DIR. NAME is the node's name, as node: name:
in its graphvol.yaml has it (the host's name, if it has none). The agents' own etcd compares
the address by which nodes reach each other, so name it with --host.`,
		Example: `  graphvol cert node ~/graph-ca a --host 10.1.0.1 --host a.example.com`,
		Args:    args(cobra.ExactArgs(2), "DIR and NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			lifetime, err := lifetimeOf(days)
			if err != nil {
				return err
			}
			p, err := pki.MakeNode(args[0], args[1], hosts, lifetime)
			return a.made(p, err)
		},
	}
	cmd.Flags().StringArrayVar(&hosts, "host", nil, "a host's name or an IP address by which the node is reached; repeat it for more")
	daysFlag(cmd, &days)
	return cmd
}

func (a *app) certOperatorCmd() *cobra.Command {
	var days int
	cmd := &cobra.Command{
		Use:   "operator DIR NAME",
		Short: "Make the certificate of somebody who asks nodes",
		Long: `Makes DIR/NAME.crt and DIR/NAME.key with the CA in DIR. With them a person or a program can
ask agents from elsewhere; they can't pass for a node.`,
		Example: `  graphvol cert operator ~/graph-ca eve --days 90`,
		Args:    args(cobra.ExactArgs(2), "DIR and NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			lifetime, err := lifetimeOf(days)
			if err != nil {
				return err
			}
			p, err := pki.MakeOperator(args[0], args[1], lifetime)
			return a.made(p, err)
		},
	}
	daysFlag(cmd, &days)
	return cmd
}

func daysFlag(cmd *cobra.Command, days *int) {
	cmd.Flags().IntVar(days, "days", int(pki.Lifetime/day), "how long it is valid; never longer than its CA")
}

func lifetimeOf(days int) (time.Duration, error) {
	if most := 100 * 365; days < 1 || days > most {
		return 0, usageError{fmt.Errorf("--days must be between 1 and %d", most)}
	}
	return time.Duration(days) * day, nil
}

func (a *app) made(p pki.Pair, err error) error {
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "wrote %s and %s\n", p.Cert, p.Key)
	return err
}
