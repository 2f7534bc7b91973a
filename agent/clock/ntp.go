package clock

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/beevik/ntp"
)

// serverBound is how long a time server may take to answer, its name's look-up included.
const serverBound = 2 * time.Second

// askServer reads the clock of an NTP server, HOST or HOST:PORT. now is this machine's clock; nil: the system's.
func askServer(ctx context.Context, server string, longest time.Duration, now func() time.Time) Reading {
	ctx, cancel := context.WithTimeout(ctx, serverBound)
	defer cancel()
	r := Reading{Kind: KindNTP, Name: server}
	resp, err := ntp.QueryWithOptions(server, ntp.QueryOptions{
		Timeout:       serverBound,
		GetSystemTime: now,
		Dialer: func(_, remote string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "udp", remote)
			if err == nil {
				// The package knows no context. It is done with the connection when ctx ends, so the function runs once in any case.
				context.AfterFunc(ctx, func() { c.Close() })
			}
			return c, err
		},
	})
	if err == nil {
		err = resp.Validate()
	}
	switch {
	case err != nil:
		r.Problem = fmt.Sprintf("the time server %s can't be used: %v", server, err)
	case resp.RootDistance > longest:
		r.Problem = fmt.Sprintf("the time server %s may be wrong by %s itself", server, resp.RootDistance.Round(time.Millisecond))
	case resp.RTT > longest:
		r.Problem = tooLong(server, resp.RTT, longest)
	default:
		r.Known, r.Synchronised = true, true
		r.Offset, r.Error, r.RoundTrip = -resp.ClockOffset, resp.RootDistance, resp.RTT
	}
	return r
}
