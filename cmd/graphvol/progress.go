package main

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/sys/unix"

	"graphvol/agent/api"
)

// progress shows long work on a terminal, and nothing anywhere else.
type progress struct {
	bar  *progressbar.ProgressBar // nil: not a terminal
	what string
}

func newProgress(w io.Writer, what string) *progress {
	p := &progress{what: what}
	if !isTerminal(w) {
		return p
	}
	p.bar = progressbar.NewOptions64(-1,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true),
		progressbar.OptionShowCount(),
		progressbar.OptionSetWidth(24),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSpinnerType(14),
	)
	return p
}

// update shows the newest figures; nil figures change nothing.
func (p *progress) update(f *api.Progress) {
	if p.bar == nil || f == nil {
		return
	}
	if total := f.GetTotalBytes(); total > 0 && total != p.bar.GetMax64() {
		p.bar.ChangeMax64(total)
	}
	p.bar.Set64(f.GetDoneBytes())
}

// stage says what is being done now.
func (p *progress) stage(what string) {
	if p.bar != nil && what != p.what {
		p.what = what
		p.bar.Describe(what)
	}
}

// done takes the bar away.
func (p *progress) done() {
	if p.bar != nil {
		p.bar.Finish()
		p.bar = nil
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
