// Package freeport finds TCP ports for servers of tests, which stop and start again at the same one.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
)

const (
	rangePath = "/proc/sys/net/ipv4/ip_local_port_range"
	lowest    = 10000
)

var taken struct {
	sync.Mutex
	ports map[int]bool
}

// Take gives a port at which nobody listens, each only once in this process. It is not of those that the kernel gives to connections (ip(7), ip_local_port_range), one of which would have it at the
// moment at which a server wants it again.
func Take() (int, error) {
	first, err := firstOfConnections()
	if err != nil {
		return 0, err
	}
	taken.Lock()
	defer taken.Unlock()
	for range 1000 {
		port := lowest + rand.IntN(first-lowest)
		if taken.ports[port] || !free(port) {
			continue
		}
		if taken.ports == nil {
			taken.ports = make(map[int]bool)
		}
		taken.ports[port] = true
		return port, nil
	}
	return 0, fmt.Errorf("no port from %d to %d is free", lowest, first-1)
}

func firstOfConnections() (int, error) {
	var first, last int
	raw, err := os.ReadFile(rangePath)
	if err == nil {
		_, err = fmt.Sscan(string(raw), &first, &last)
	}
	if err == nil && first <= lowest {
		err = errors.New("it leaves no ports for tests")
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", rangePath, err)
	}
	return first, nil
}

func free(port int) bool {
	ln, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return ln.Close() == nil
}
