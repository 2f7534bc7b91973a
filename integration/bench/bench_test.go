package main

import (
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"graphvol/chunkstore/target"
	"graphvol/chunkstore/target/dial"
	"graphvol/chunkstore/target/s3/s3test"
)

func TestMedianAndRatios(t *testing.T) {
	if got := median([]float64{5, 1, 3}); got != 3 {
		t.Error("odd:", got)
	}
	if got := median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Error("even:", got)
	}
	if got := median(nil); got != 0 {
		t.Error("none:", got)
	}
	if got := ratios([]float64{2, 9}, []float64{4, 3}); got[0] != 0.5 || got[1] != 3 {
		t.Error(got)
	}
}

func TestParseRates(t *testing.T) {
	into := rates{}
	out := "fillrandom   :       7.012 micros/op 142606 ops/sec 14.0 seconds 2000000 operations;   15.8 MB/s\n" +
		"DB path: [/x]\nreadseq      :       0.512 micros/op 1950000 ops/sec 1.0 seconds\n"
	if err := parseRates(out, into); err != nil {
		t.Fatal(err)
	}
	if into["fillrandom"][0] != 142606 || into["readseq"][0] != 1950000 || len(into) != 2 {
		t.Error(into)
	}
	if parseRates("nothing", into) == nil {
		t.Error("no result, no error")
	}
}

// TestPages: half of a page's bytes are zero, and as many pages change as are asked for.
func TestPages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pages")
	if err := makePages(path, 2, 1); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := changePages(path, 17, 2); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed, zeros := 0, 0
	for at := 0; at < len(after); at += pageSize {
		if string(before[at:at+pageSize]) != string(after[at:at+pageSize]) {
			changed++
		}
	}
	for _, b := range after {
		if b == 0 {
			zeros++
		}
	}
	if len(after) != 2<<20 || changed != 17 || math.Abs(float64(zeros)/(2<<20)-0.5) > 0.01 {
		t.Errorf("%d bytes, %d changed pages, %d zeros", len(after), changed, zeros)
	}
}

// TestPeers: both peers make a full and an incremental backup of a plain directory.
func TestPeers(t *testing.T) {
	b := &bench{dir: t.TempDir(), scale: scale{FileMiB: 8, ChangedPct: 1}}
	plain := filepath.Join(b.dir, "plain")
	if err := os.Mkdir(plain, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := makePages(filepath.Join(plain, pagesName), b.scale.FileMiB, 1); err != nil {
		t.Fatal(err)
	}
	for _, p := range b.peers() {
		t.Run(p.name, func(t *testing.T) {
			if _, err := exec.LookPath(p.name); err != nil {
				t.Skip(err)
			}
			times := &times{}
			if err := b.peerRound(t.Context(), p, plain, times); err != nil {
				t.Fatal(err)
			}
			if times.full[0] <= 0 || times.incremental[0] <= 0 || times.stored[0] <= 0.1 {
				t.Errorf("%+v", times)
			}
		})
	}
}

// TestAging: both patterns give as many pages as asked for, inside the file, and half of them or more again the next time.
func TestAging(t *testing.T) {
	for name, pages := range map[string]func(int, int, uint64) []int{"runs": inRuns, "scattered": scattered} {
		a, b := pages(10_000, 100, 1), pages(10_000, 100, 2)
		again := 0
		for _, n := range a {
			if n < 0 || n >= 10_000 {
				t.Errorf("%s: page %d", name, n)
			}
			if slices.Contains(b, n) {
				again++
			}
		}
		if len(a) != 100 || again < 50 || again > 95 {
			t.Errorf("%s: %d pages, %d of them again", name, len(a), again)
		}
	}
}

// TestMeter: what passes the proxy is what the server has got and given.
func TestMeter(t *testing.T) {
	m, err := newMeter(s3test.Start(t))
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	tg, err := dial.Open(t.Context(), "s3://"+s3test.Bucket+"/x?endpoint=http://"+m.addr+"&insecure=1")
	if err != nil {
		t.Fatal(err)
	}
	m.take()
	data := make([]byte, 100_000)
	if err := target.Put(t.Context(), tg, "name", data); err != nil {
		t.Fatal(err)
	}
	if got := m.take(); got.requests["PUT"] != 1 || got.up != int64(len(data)) {
		t.Errorf("a put: %+v", got)
	}
	if _, err := target.Get(t.Context(), tg, "name", 1<<20); err != nil {
		t.Fatal(err)
	}
	if got := m.take(); got.requests["GET"] == 0 || got.down < int64(len(data)) {
		t.Errorf("a get: %+v", got)
	}
}
