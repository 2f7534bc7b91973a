package clock

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Kind is a kind of source.
type Kind string

// The kinds of sources.
const (
	KindNTP    Kind = "ntp"
	KindPeer   Kind = "peer"
	KindKernel Kind = "kernel"
)

// Reading is what one source says.
type Reading struct {
	Kind         Kind
	Name         string        // of the server or the peer; empty: the kernel
	Known        bool          // Offset and Error are
	Offset       time.Duration // how far this machine's clock is ahead of the source's
	Error        time.Duration // the true offset is at most so far from Offset
	RoundTrip    time.Duration // of the exchange that it is from
	Synchronised bool          // the source's kernel says that its clock is kept right
	Problem      string        // why nothing is known
}

// Stamps are the four times of one exchange with a peer. Sent and Arrived are this machine's (time.Now, with its monotonic reading), the others the peer's.
type Stamps struct {
	Sent     time.Time // the question left here
	Received time.Time // the question came to the peer
	Answered time.Time // the answer left the peer
	Arrived  time.Time // the answer came here

	Synchronised bool // what Synchronised tells at the peer
}

// Exchange asks a peer for its time, once. It is bounded by its context.
type Exchange func(ctx context.Context) (Stamps, error)

// Peer is another node whose clock can be asked.
type Peer struct {
	Name     string
	Exchange Exchange
}

// coarse is how much two clocks may differ over an exchange without one of them having jumped.
const coarse = 10 * time.Millisecond

// offset computes what an exchange tells.
func (s Stamps) offset() (offset, roundTrip time.Duration, err error) {
	sent, arrived := s.Sent.Round(0), s.Arrived.Round(0) // as the wall shows
	roundTrip = s.Arrived.Sub(s.Sent) - s.Answered.Sub(s.Received)
	if roundTrip < -coarse || s.Answered.Before(s.Received) {
		return 0, 0, errors.New("a clock jumped during the exchange")
	}
	// Halved before they are added: a clock that has lost its date is centuries away.
	offset = sent.Sub(s.Received)/2 + arrived.Sub(s.Answered)/2
	return offset, max(roundTrip, 0), nil
}

const (
	samples       = 4                    // exchanges with one peer, at most
	goodRoundTrip = 5 * time.Millisecond // no further exchange is needed
	exchangeBound = time.Second
)

// ask reads a peer's clock. Of all exchanges the one with the shortest round trip counts.
func (p Peer) ask(ctx context.Context, longest time.Duration) Reading {
	r := Reading{Kind: KindPeer, Name: p.Name}
	var last error
	for range samples {
		offset, trip, synced, err := p.once(ctx)
		switch {
		case err != nil:
			last = err
		case !r.Known || trip < r.RoundTrip:
			r.Known, r.Offset, r.Error, r.RoundTrip, r.Synchronised = true, offset, trip/2, trip, synced
		}
		if r.Known && r.RoundTrip <= goodRoundTrip || ctx.Err() != nil {
			break
		}
	}
	switch {
	case !r.Known:
		r.Problem = fmt.Sprintf("%s doesn't tell its time: %v", p.Name, last)
	case r.RoundTrip > longest:
		r.Known, r.Problem = false, tooLong(p.Name, r.RoundTrip, longest)
	}
	return r
}

func tooLong(name string, trip, longest time.Duration) string {
	return fmt.Sprintf("the answer of %s took %s, and after more than %s it says too little", name, trip.Round(time.Millisecond), longest)
}

func (p Peer) once(ctx context.Context) (offset, trip time.Duration, synced bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeBound)
	defer cancel()
	s, err := p.Exchange(ctx)
	if err == nil {
		offset, trip, err = s.offset()
	}
	return offset, trip, s.Synchronised, err
}
