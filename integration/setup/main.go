// Command setup makes sure that the programs given as arguments are installed.
package main

import (
	"context"
	"fmt"
	"os"

	"graphvol/integration/need"
)

func main() {
	if err := need.Programs(context.Background(), os.Stdout, os.Args[1:]...); err != nil {
		fmt.Fprintln(os.Stderr, "setup:", err)
		os.Exit(1)
	}
}
