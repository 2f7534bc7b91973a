package remote

import (
	"context"
	"time"
)

// scrubLook is how often a worker looks whether a scrub is due, and how long it waits after one that couldn't be done. Clocks are set, and machines sleep.
const scrubLook = time.Hour

// scrub scrubs the remote whenever a scrub is due.
func (w *Worker) scrub(ctx context.Context) {
	for {
		wait, err := w.remote.untilScrub(time.Now())
		if err != nil {
			wait = scrubLook // what a round says of it is enough
		}
		if wait <= 0 && !w.scrubNow(ctx) {
			wait = scrubLook
		}
		select {
		case <-time.After(min(max(0, wait), scrubLook)):
		case <-ctx.Done():
			return
		}
	}
}

// untilScrub tells how long it is until a scrub is due.
func (r *Remote) untilScrub(now time.Time) (time.Duration, error) {
	st, err := readState(r.cfg.Local.Index, r.cfg.Name)
	switch {
	case err != nil:
		return 0, err
	case st.Store == "": // nothing is there yet
		return scrubLook, nil
	case st.Scrub == nil || st.Scrub.Since.After(now) || st.Scrub.Done.After(now): // the clock may have been wrong then
		return r.cfg.ScrubEvery, r.noteScrub(scrubRecord{Since: now.UTC()})
	case st.Scrub.At != "": // one was interrupted
		return 0, nil
	}
	last := st.Scrub.Since
	if st.Scrub.Done.After(last) {
		last = st.Scrub.Done
	}
	return last.Add(r.cfg.ScrubEvery).Sub(now), nil
}

// scrubNow does a scrub. What it has noted is for a round.
func (w *Worker) scrubNow(ctx context.Context) (whole bool) {
	began := time.Now()
	res, err := w.remote.Scrub(ctx, ScrubOptions{Limit: w.remote.cfg.ScrubLimit, Resume: true})
	if res.Problems() > 0 {
		w.Kick()
	}
	log := w.remote.cfg.Log
	switch {
	case ctx.Err() != nil:
	case err != nil:
		log.Warn("the copy could not be scrubbed; it is tried again", "err", err, "objects", res.Objects, "read_bytes", res.Bytes)
	default:
		log.Info("the copy was scrubbed", "objects", res.Objects, "read_bytes", res.Bytes, "problems", res.Problems(), "mended", res.Mended, "away", res.Away,
			"took", time.Since(began))
	}
	return err == nil
}
