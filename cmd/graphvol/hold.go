package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"graphvol/agent"
)

// holdCmd is what mount starts: the process that owns the mount.
func (a *app) holdCmd() *cobra.Command {
	return hidden("hold", "Own a mount (started by mount)",
		"Owns a mount and keeps a server running. Started by graphvol mount; not for people.",
		func(cmd *cobra.Command, o agent.MountOptions) error {
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			return agent.HoldDetached(cmd.Context(), self, o)
		})
}

// serveCmd is what a holder starts: the process that answers the kernel.
func (a *app) serveCmd() *cobra.Command {
	return hidden("serve", "Serve a mount (started by hold)",
		"Answers the kernel's requests for a mount. Started by its holder; not for people.",
		func(cmd *cobra.Command, o agent.MountOptions) error { return agent.Serve(cmd.Context(), o, a.version) })
}

// hidden makes a command that another process of this program starts. Its only argument are the options as JSON.
func hidden(name, short, long string, run func(*cobra.Command, agent.MountOptions) error) *cobra.Command {
	return &cobra.Command{
		Use:    name + " OPTIONS",
		Short:  short,
		Long:   long,
		Hidden: true,
		Args:   args(cobra.ExactArgs(1), "options"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := agent.ParseMountOptions(args[0])
			if err != nil {
				return usageError{err}
			}
			return run(cmd, o)
		},
	}
}
