package cluster

import (
	"context"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// rows finds what docs/metrics.md names, samples what a page for Prometheus has, of which a histogram has several.
var (
	rows    = regexp.MustCompile("(?m)^\\| `(graphvol_[a-z_]+)` \\| (gauge|counter|histogram) ")
	samples = regexp.MustCompile(`(?m)^(graphvol_[a-z_]+?)(_bucket|_sum|_count)?(\{.*\})? `)
)

// metrics: when a cluster has had a snapshot, each metric of docs/metrics.md has a value on some node.
func (t *test) metrics() {
	a := t.Nodes[0]
	t.set(a, settings{volume: t.withHooks(a) + "    schedule: \"@yearly\"\n"})
	t.snapshot("measured")
	wanted := make(map[string]bool)
	for _, m := range rows.FindAllStringSubmatch(t.read("../../docs/metrics.md"), -1) {
		wanted[m[1]] = true
	}
	if len(wanted) < 30 {
		t.Fatalf("docs/metrics.md names only %v", slices.Sorted(maps.Keys(wanted)))
	}
	for _, n := range t.Nodes {
		if page := t.page(n); !strings.Contains(page, "\ngraphvol_hold_seconds_count{volume=\"graph\"} ") || strings.Contains(page, "\ngraphvol_hold_seconds_count{volume=\"graph\"} 0\n") {
			t.Errorf("node %s has measured no hold", n.Name)
		}
	}
	defer func() {
		if t.Failed() {
			t.Logf("no node has a value of %s", strings.Join(slices.Sorted(maps.Keys(wanted)), ", "))
		}
	}()
	t.eventually("each metric has a value", func(context.Context) bool { // heartbeats come every five seconds
		for _, n := range t.Nodes {
			for _, m := range samples.FindAllStringSubmatch(t.page(n), -1) {
				delete(wanted, m[1])
			}
		}
		return len(wanted) == 0
	})
}

// page is what a node serves for Prometheus.
func (t *test) page(n *Node) string {
	t.Helper()
	res, err := http.Get("http://" + t.setting(n, "metrics") + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	p, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(p)
}
