package freeport

import (
	"fmt"
	"net"
	"testing"
)

func TestTake(t *testing.T) {
	first, err := firstOfConnections()
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[int]bool)
	for range 200 {
		port, err := Take()
		if err != nil || seen[port] || port < lowest || port >= first {
			t.Fatalf("%d after %v, %v", port, seen, err)
		}
		seen[port] = true
	}
	port, err := Take()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if free(port) {
		t.Errorf("somebody listens at %d", port)
	}
}
