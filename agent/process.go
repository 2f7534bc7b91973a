package agent

import (
	"os"
	"runtime/metrics"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"graphvol/agent/api"
)

// The runtime's names for what is told of the server.
const (
	metricGoroutines = "/sched/goroutines:goroutines"
	metricLiveHeap   = "/gc/heap/live:bytes"
)

// thisProcess tells what this process uses. What can't be found out is 0: no answer fails for it.
func thisProcess() *api.ServerProcess {
	samples := []metrics.Sample{{Name: metricGoroutines}, {Name: metricLiveHeap}}
	metrics.Read(samples)
	p := &api.ServerProcess{OpenFiles: openFiles(), ResidentBytes: residentBytes()}
	for _, s := range samples {
		if s.Value.Kind() != metrics.KindUint64 {
			continue
		}
		switch n := int64(s.Value.Uint64()); s.Name {
		case metricGoroutines:
			p.Goroutines = n
		case metricLiveHeap:
			p.HeapBytes = n
		}
	}
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) == nil {
		p.MaxOpenFiles = int64(lim.Cur)
	}
	return p
}

// openFiles counts the thread's own descriptors: those of /proc/self are the first thread's, which may have been given others
// (hold.WithOwnFiles).
func openFiles() int64 {
	dir, err := os.Open("/proc/thread-self/fd")
	if err != nil {
		return 0
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return 0
	}
	return int64(len(names)) - 1 // without the one that reads the directory
}

func residentBytes() int64 {
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(raw))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(f[1], 10, 64)
	return pages * int64(os.Getpagesize())
}
