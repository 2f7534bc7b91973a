package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"
)

// printJSON writes one indented value.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}

// size gives bytes in powers of 1024 with three digits.
func size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, units := float64(n)/1024, "KMGTPE"
	i := 0
	for v >= 1023.5 && i < len(units)-1 {
		v /= 1024
		i++
	}
	switch {
	case v < 9.995:
		return fmt.Sprintf("%.2f %ciB", v, units[i])
	case v < 99.95:
		return fmt.Sprintf("%.1f %ciB", v, units[i])
	}
	return fmt.Sprintf("%.0f %ciB", v, units[i])
}

// parseSize reads a number of bytes, with K, M, G or T behind it if wanted: powers of 1024.
func parseSize(s string) (int64, error) {
	digits, shift := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(s), "B"), "I"), 0
	if n := len(digits); n > 0 {
		if i := strings.IndexByte("KMGT", digits[n-1]); i >= 0 {
			digits, shift = digits[:n-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is no size: give one as 512M or 10G", s)
	}
	return n << shift, nil
}

// duration gives three digits.
func duration(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return fmt.Sprintf("%.3gms", float64(d)/1e6)
	case d < time.Minute:
		return fmt.Sprintf("%.3gs", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// plural writes "1 file", "2 files".
func plural(n int64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// name gives a path of a volume for JSON. It may have none while it moves.
func name(path []byte) string {
	if len(path) == 0 {
		return "(no known name)"
	}
	return string(path)
}

// exact gives a path in base64 if it isn't UTF-8: JSON's strings are, so several such paths look the same there.
func exact(path []byte) string {
	if utf8.Valid(path) {
		return ""
	}
	return base64.StdEncoding.EncodeToString(path)
}

// shown gives a path for people: in quotes if it holds what would spoil a terminal or a line, or could be taken for something else that is
// printed: for quotes, a remark, or two paths.
func shown(path []byte) string {
	s := name(path)
	if len(path) > 0 && (s[0] == '"' || s[0] == '(' || s[len(s)-1] == ')' || strings.Contains(s, " -> ")) {
		return strconv.Quote(s)
	}
	for _, r := range s {
		if !strconv.IsPrint(r) || r == utf8.RuneError {
			return strconv.Quote(s)
		}
	}
	return s
}

// table aligns columns; the last one may hold blanks.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer, head ...string) *table {
	t := &table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	t.row(head...)
	return t
}

func (t *table) row(cells ...string) {
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func (t *table) flush() error {
	if err := t.w.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
