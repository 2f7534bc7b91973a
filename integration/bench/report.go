package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// report is what a run has found.
type report struct {
	Started    time.Time         `json:"started"`
	Version    string            `json:"version"`
	Kernel     string            `json:"kernel"`
	CPU        string            `json:"cpu"`
	CPUs       int               `json:"cpus"`
	Filesystem string            `json:"filesystem"`
	Peers      map[string]string `json:"peers"`
	Scale      scale             `json:"scale"`
	Rows       []row             `json:"rows"`
}

// row is one figure.
type row struct {
	Case    string    `json:"case"`
	Figure  string    `json:"figure"`
	Unit    string    `json:"unit"`
	Value   float64   `json:"value"`             // median of the samples, or one value
	Samples []float64 `json:"samples,omitempty"` // in the order they were taken
	Target  string    `json:"target,omitempty"`
	Met     *bool     `json:"met,omitempty"`
}

func (r row) atMost(limit float64) row {
	met := r.Value <= limit
	r.Target, r.Met = "at most "+number(limit), &met
	return r
}

func (r row) atLeast(limit float64) row {
	met := r.Value >= limit
	r.Target, r.Met = "at least "+number(limit), &met
	return r
}

// sampled is a row whose value is the median.
func sampled(kase, figure, unit string, samples []float64) row {
	return row{Case: kase, Figure: figure, Unit: unit, Value: median(samples), Samples: samples}
}

func median(samples []float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(samples))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// ratios divides sample by sample: each pair was taken in the same minute.
func ratios(a, b []float64) []float64 {
	out := make([]float64, min(len(a), len(b)))
	for i := range out {
		out[i] = a[i] / b[i]
	}
	return out
}

func (r *report) add(rows ...row) {
	for _, x := range rows {
		fmt.Printf("   %-10s %-62s %12s %-7s %s\n", x.Case, x.Figure, number(x.Value), x.Unit, x.verdict())
		r.Rows = append(r.Rows, x)
	}
}

func (r row) verdict() string {
	switch {
	case r.Met == nil:
		return ""
	case *r.Met:
		return r.Target + ": yes"
	}
	return r.Target + ": NO"
}

func number(v float64) string {
	switch {
	case v >= 1000 || v == float64(int64(v)):
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

func newReport(ctx context.Context, bin, dir string, s scale) (*report, error) {
	version, err := firstLine(ctx, bin, "version")
	if err != nil {
		return nil, err
	}
	r := &report{Started: time.Now().UTC(), Version: version, CPUs: runtime.NumCPU(), Scale: s, Peers: map[string]string{}}
	for name, args := range map[string][]string{"borg": {"borg", "--version"}, "restic": {"restic", "version"}} {
		if r.Peers[name], err = firstLine(ctx, args[0], args[1:]...); err != nil {
			return nil, err
		}
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, err
	}
	r.Kernel = unix.ByteSliceToString(uts.Release[:])
	r.CPU = cpuModel()
	r.Filesystem, err = firstLine(ctx, "findmnt", "-n", "-o", "FSTYPE", "-T", dir)
	return r, err
}

func cpuModel() string {
	raw, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(raw)) {
		if _, v, ok := strings.Cut(line, ":"); ok && strings.HasPrefix(line, "model name") {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

func firstLine(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line, nil
}

func (r *report) write(dir string) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), append(raw, '\n'), 0o644); err != nil {
		return err
	}
	md := filepath.Join(dir, "results.md")
	fmt.Println("results:", md)
	return os.WriteFile(md, r.markdown(), 0o644)
}

func (r *report) markdown() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s, %s scale, %s; Linux %s, %d × %s, %s; %s; %s.\n\n", r.Started.Format("2006-01-02"), r.Scale.Name, r.Version,
		r.Kernel, r.CPUs, r.CPU, r.Filesystem, r.Peers["borg"], r.Peers["restic"])
	b.WriteString("| case | figure | median | unit | target | reached | samples |\n| --- | --- | ---: | --- | --- | --- | --- |\n")
	for _, x := range r.Rows {
		reached := ""
		if x.Met != nil {
			reached = map[bool]string{true: "yes", false: "**no**"}[*x.Met]
		}
		var samples []string
		for _, s := range x.Samples {
			samples = append(samples, number(s))
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", x.Case, x.Figure, number(x.Value), x.Unit, x.Target, reached,
			strings.Join(samples, " "))
	}
	return b.Bytes()
}
