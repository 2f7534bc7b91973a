package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"graphvol/agent"
)

// holdCmd is what mount starts: the process that owns the mount. Its only argument are the options as JSON.
func (a *app) holdCmd() *cobra.Command {
	return &cobra.Command{
		Use:    "hold OPTIONS",
		Short:  "Own a mount (started by mount)",
		Long:   "Owns a mount and keeps a server running. Started by graphvol mount; not for people.",
		Hidden: true,
		Args:   args(cobra.ExactArgs(1), "options"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := agent.ParseMountOptions(args[0])
			if err != nil {
				return usageError{err}
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			return agent.HoldDetached(cmd.Context(), self, o)
		},
	}
}

// serveCmd is what a holder starts: the process that answers the kernel.
func (a *app) serveCmd() *cobra.Command {
	return &cobra.Command{
		Use:    "serve OPTIONS",
		Short:  "Serve a mount (started by hold)",
		Long:   "Answers the kernel's requests for a mount. Started by its holder; not for people.",
		Hidden: true,
		Args:   args(cobra.ExactArgs(1), "options"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := agent.ParseMountOptions(args[0])
			if err != nil {
				return usageError{err}
			}
			return agent.Serve(cmd.Context(), o, a.version)
		},
	}
}
