// Command graphvol mounts the data directories of graph databases as volumes with snapshots. See docs/commands.md.
package main

import (
	"context"
	"os"
)

// version is set by the linker.
var version = "dev"

func main() {
	a := &app{out: os.Stdout, err: os.Stderr, version: version}
	os.Exit(a.invoked(context.Background(), os.Args))
}
