package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"graphvol/agent"
)

func (a *app) versionCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Long:    "Prints the version of this program and of the Go release that built it; as JSON also the\nversions of the formats that it reads and writes.",
		Example: "  graphvol version --json",
		Args:    args(cobra.NoArgs, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return printJSON(a.out, agent.Program{Version: a.version, Go: runtime.Version(), Formats: agent.Formats()})
			}
			fmt.Fprintf(a.out, "graphvol %s (%s)\n", a.version, runtime.Version())
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
