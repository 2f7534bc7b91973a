// Package clocktest runs servers with clocks of their own, for tests.
package clocktest

import (
	"encoding/binary"
	"net"
	"testing"
	"time"
)

// Listen answers datagrams on a local address until the test ends.
func Listen(t testing.TB, answer func([]byte) []byte) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 512)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if out := answer(buf[:n]); out != nil {
				_, _ = c.WriteTo(out, from)
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-ended })
	return c.LocalAddr().String()
}

// NTP is a time server (RFC 5905, figure 8) with a clock of its own, at HOST:PORT until the test ends. change may spoil its answers; nil: they are right.
func NTP(t testing.TB, now func() time.Time, change func(packet []byte)) string {
	stamp := func(p []byte, at time.Time) {
		const since1900 = 2208988800
		binary.BigEndian.PutUint32(p, uint32(at.Unix()+since1900))
		binary.BigEndian.PutUint32(p[4:], uint32(uint64(at.Nanosecond())<<32/1e9))
	}
	return Listen(t, func(ask []byte) []byte {
		received := now()
		p := make([]byte, 48)
		p[0], p[1] = 4<<3|4, 2 // version 4, server; stratum
		p[3] = 0xec            // precision: 2^-20 s
		binary.BigEndian.PutUint32(p[8:], 1<<16/100)
		stamp(p[16:], received.Add(-time.Minute))
		copy(p[24:32], ask[40:48])
		stamp(p[32:], received)
		stamp(p[40:], now())
		if change != nil {
			change(p)
		}
		return p
	})
}
