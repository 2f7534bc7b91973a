package remote

import "time"

// saveEvery is how often a running scrub notes where it is: it costs a write to the index, and saves reading again what was read since.
const saveEvery = 10 * time.Second

// scrubRecord is what the index remembers of a remote's scrubs.
type scrubRecord struct {
	Since    time.Time `json:"since,omitzero"`     // when the time to the first scrub began to count
	Began    time.Time `json:"began,omitzero"`     // of one that can be resumed
	At       string    `json:"at,omitempty"`       // the last object that it has looked at; empty: none is to be resumed
	Found    int       `json:"found,omitempty"`    // by it so far, and not mended
	Done     time.Time `json:"done,omitzero"`      // end of the last whole one
	Problems int       `json:"problems,omitempty"` // that it has found, and not mended
}

// begin goes on with a scrub, or begins one.
func (s *scrub) begin() error {
	if old := s.state.Scrub; old != nil {
		s.record = *old
	}
	if s.opts.Resume && s.record.At != "" {
		return nil
	}
	s.record.At, s.record.Found, s.record.Began = "", 0, time.Now().UTC()
	return s.save(0)
}

// save notes where the scrub is, if it hasn't for a while. Others aren't resumed, so they don't.
func (s *scrub) save(every time.Duration) error {
	if !s.opts.Resume || time.Since(s.saved) < every {
		return nil
	}
	s.saved = time.Now()
	return s.Remote.noteScrub(s.record)
}

// end notes how the scrub ended.
func (s *scrub) end(whole bool) error {
	if !whole {
		return s.save(0)
	}
	s.record.Done, s.record.Problems = time.Now().UTC(), s.record.Found
	s.record.At, s.record.Found, s.record.Began = "", 0, time.Time{}
	return s.Remote.noteScrub(s.record)
}

// noteScrub changes the remote's record, beside a round that may do so too.
func (r *Remote) noteScrub(rec scrubRecord) error {
	r.recording.Lock()
	defer r.recording.Unlock()
	st, err := readState(r.cfg.Local.Index, r.cfg.Name)
	if err != nil {
		return err
	}
	st.Scrub = &rec
	return writeState(r.cfg.Local.Index, r.cfg.Name, &st)
}
