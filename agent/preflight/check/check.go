// Package check is what all checks before a backup have in common: a row that says what was looked at, what is wrong with it, and which command mends that.
package check

import (
	"fmt"
	"strings"
)

// Row is one thing that was looked at. Its JSON is what graphvol preflight --json prints.
type Row struct {
	Name    string `json:"name"`    // of the check: path, hook, fuse, space, …
	Subject string `json:"subject"` // what was looked at: a path, a host, a role
	OK      bool   `json:"ok"`
	Problem string `json:"problem,omitempty"` // one line: what is wrong, and what to do if no command does it
	Fix     string `json:"fix,omitempty"`     // a command for a shell that mends it, run by somebody who may
}

// Good is a row of something that is as it must be.
func Good(name, subject string) Row { return Row{Name: name, Subject: subject, OK: true} }

// Bad is a row of something that isn't. fix may be empty.
func Bad(name, subject, problem, fix string) Row {
	return Row{Name: name, Subject: subject, Problem: problem, Fix: fix}
}

// String is the row as people read it, one line.
func (r Row) String() string {
	switch {
	case r.OK:
		return fmt.Sprintf("%s %s: all right", r.Name, r.Subject)
	case r.Fix == "":
		return fmt.Sprintf("%s %s: %s", r.Name, r.Subject, r.Problem)
	}
	return fmt.Sprintf("%s %s: %s; fix: %s", r.Name, r.Subject, r.Problem, r.Fix)
}

// Failed gives the rows that are not OK.
func Failed(rows []Row) (failed []Row) {
	for _, r := range rows {
		if !r.OK {
			failed = append(failed, r)
		}
	}
	return failed
}

// Quote makes of any text one word of a shell command.
func Quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-:,=@%+", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
