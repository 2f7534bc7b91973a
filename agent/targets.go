package agent

import (
	"context"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"graphvol/agent/api"
	"graphvol/chunkstore/target/dial"
	"graphvol/chunkstore/target/probe"
	"graphvol/remote"
)

// Target is one of the targets of a volume's copies.
type Target struct {
	URL       string
	Copy      string // the copy's name
	Erasure   string // how the copy is spread; empty: all of it is here
	Encrypted bool
}

// Targets lists the targets of all copies of a volume. Nothing is asked of them.
func Targets(ctx context.Context, volume string, stderr io.Writer) ([]Target, error) {
	c, err := Open(ctx, volume, stderr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	st, err := c.Status(ctx, &api.StatusRequest{WithoutSizes: true})
	if err != nil {
		return nil, err
	}
	var all []Target
	for _, r := range st.GetRemotes() {
		for _, url := range r.GetUrls() {
			all = append(all, Target{url, r.GetName(), r.GetErasure(), r.GetEncrypted()})
		}
	}
	return all, nil
}

// IsTargetURL tells whether an argument is meant to be a target's URL and not a path.
func IsTargetURL(arg string) bool {
	return strings.HasPrefix(arg, "dir:") || strings.HasPrefix(arg, "s3:")
}

// Checked is what CheckTarget has found.
type Checked struct {
	URL   string
	Found remote.Found
	Steps []probe.Step // the last one may have failed
	Err   error        // the target can't be used; nil: it can
}

// checkTimeout bounds a check of one target.
const checkTimeout = 2 * time.Minute

// CheckTarget tries whether a place can be a target, with objects of its own that it removes again.
func CheckTarget(ctx context.Context, url string) Checked {
	res := Checked{URL: url}
	if err := dial.Check(url); err != nil {
		res.Err = refuse(codes.InvalidArgument, err.Error())
		return res
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	start := time.Now()
	t, err := dial.Open(ctx, url)
	res.Steps = append(res.Steps, probe.Step{Name: "open", Took: time.Since(start), Err: err})
	if err == nil {
		if c, ok := t.(io.Closer); ok {
			defer c.Close()
		}
		res.Steps = append(res.Steps, probe.Run(ctx, t)...)
		if err = res.Steps[len(res.Steps)-1].Err; err == nil {
			res.Found, err = remote.Look(ctx, t)
		}
	}
	res.Err = err
	return res
}
