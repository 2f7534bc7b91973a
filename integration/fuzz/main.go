// Command fuzz runs every fuzz test of the module for a given time, one after the other.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

func main() {
	duration := flag.String("time", "10s", "how long each fuzz test runs")
	flag.Parse()
	if err := run(*duration); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

func run(duration string) error {
	packages, err := output("go", "list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}", "./...")
	if err != nil {
		return err
	}
	count := 0
	for _, pkg := range strings.Fields(packages) {
		names, err := output("go", "test", "-list", "^Fuzz", pkg)
		if err != nil {
			return err
		}
		for name := range strings.FieldsSeq(names) {
			if !strings.HasPrefix(name, "Fuzz") {
				continue
			}
			count++
			fmt.Println("==", pkg, name)
			cmd := exec.Command("go", "test", "-run", "^$", "-fuzz", "^"+name+"$", "-fuzztime", duration, "-fuzzminimizetime", "1s", pkg)
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("%s in %s: %w", name, pkg, err)
			}
		}
	}
	fmt.Println(count, "fuzz tests passed")
	return nil
}

func output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, &stderr)
	}
	return string(out), nil
}
