package telemetry

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
)

var update = flag.Bool("update", false, "write the golden files anew")

// full has all metrics that there are.
func full() *Metrics {
	at, offset, rest := time.Unix(1800000000, 0), -3*time.Millisecond, time.Millisecond
	m := NewMetrics("v1", func(context.Context) Facts {
		return Facts{
			Volumes: []VolumeFacts{
				{
					Volume: "graph", Up: true, Problem: true, Epoch: 7, DirtyBytes: 4096, StoreBytes: 1 << 20, Pending: 1, Snapshots: map[string]int64{"complete": 3}, Newest: at,
					Copies: []CopyFacts{{Name: "s3", Error: true, Behind: 2, PendingBytes: 10, DegradedObjects: 4, Problems: 5, Synced: at}},
				},
				{Volume: "bad\xff", Snapshots: map[string]int64{"complete": 1}},
			},
			Cluster:     &ClusterFacts{Snapshots: map[string]int64{"complete": 9, "failed": 1}, Newest: at, Queue: 1},
			Coordinator: true, EtcdUp: true, Paused: true, ClockOffset: &offset, ClockError: &rest, CertificateExpires: at,
			Peers: []PeerFacts{{Peer: "b", State: "suspect", Heard: at, RoundTrip: &rest}},
		}
	})
	m.Volume("graph")
	m.Schedule("graph")
	m.Pause("graph", 3*time.Millisecond)
	m.Hold("graph", 4*time.Millisecond)
	m.Sealed("graph", time.Second, 8192, 5000)
	m.SealFailed("bad\xff")
	m.ClusterSnapshot(true)
	m.ClusterSnapshot(false)
	m.Heartbeat("b", true)
	m.Heartbeat("b", false)
	m.Skipped("cluster", 2, true)
	m.Skipped("cluster", 1, false)
	m.HookFailed("graph", "post")
	return m
}

func gather(t *testing.T, m *Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	list, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	families := make(map[string]*dto.MetricFamily)
	for _, f := range list {
		families[f.GetName()] = f
	}
	return families
}

func TestLint(t *testing.T) {
	problems, err := testutil.GatherAndLint(full().registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestMetrics holds the names, labels and values of all metrics.
func TestMetrics(t *testing.T) {
	s, err := full().Serve("127.0.0.1:0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	text, status := get(t, s.Addr(), "/metrics")
	if status != http.StatusOK || !strings.Contains(text, "\ngo_goroutines ") {
		t.Errorf("status %d, without the process: %v", status, !strings.Contains(text, "\ngo_goroutines "))
	}
	if _, status := get(t, s.Addr(), "/"); status != http.StatusNotFound {
		t.Errorf("/: status %d", status)
	}
	var own strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, "graphvol_") && !strings.Contains(line, "_bucket{") {
			own.WriteString(line)
		}
	}
	golden(t, "metrics.txt", own.String())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", s.Addr()); err == nil {
		c.Close()
		t.Error("it still listens")
	}
}

func get(t *testing.T, addr, path string) (string, int) {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true}
	res, err := (&http.Client{Transport: tr}).Get("http://" + addr + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw), res.StatusCode
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew); got:\n%s", path, got)
	}
}

func TestServeRefused(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := full().Serve(ln.Addr().String(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "(node: metrics)") {
		t.Errorf("%v", err)
	}
}

// Facts that take too long are asked with an end.
func TestReadTimeout(t *testing.T) {
	m := NewMetrics("v1", func(ctx context.Context) Facts {
		if d, ok := ctx.Deadline(); !ok || time.Until(d) > ReadTimeout {
			t.Errorf("deadline %v, %v", d, ok)
		}
		return Facts{}
	})
	if n := len(gather(t, m)); n == 0 {
		t.Error("nothing")
	}
}

var metricName = regexp.MustCompile(`\bgraphvol_[a-z0-9_]+`)

// namesIn are the metrics that expressions name.
func namesIn(t *testing.T, families map[string]*dto.MetricFamily, text string) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	for _, n := range metricName.FindAllString(text, -1) {
		base := n
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if b := strings.TrimSuffix(n, suffix); families[b].GetType() == dto.MetricType_HISTOGRAM {
				base = b
			}
		}
		if families[base] == nil || base == n && families[n].GetType() == dto.MetricType_HISTOGRAM {
			t.Errorf("there is no metric %s", n)
		}
		names[base] = true
	}
	return names
}

func TestDashboard(t *testing.T) {
	var d struct {
		Templating struct {
			List []struct {
				Query any `json:"query"`
			} `json:"list"`
		} `json:"templating"`
		Panels []struct {
			ID      int    `json:"id"`
			Type    string `json:"type"`
			Title   string `json:"title"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	readFile(t, "../../contrib/grafana/graphvol.json", &d)
	families := gather(t, full())
	shown := make(map[string]bool)
	ids := make(map[int]bool)
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have the id %d", p.ID)
		}
		ids[p.ID] = true
		if len(p.Targets) == 0 && p.Type != "row" {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			for n := range namesIn(t, families, target.Expr) {
				shown[n] = true
			}
			checkExpression(t, families, target.Expr)
		}
	}
	for _, v := range d.Templating.List {
		namesIn(t, families, fmt.Sprint(v.Query))
	}
	for n := range families {
		if !shown[n] {
			t.Errorf("no panel shows %s", n)
		}
	}
}

func TestRules(t *testing.T) {
	var r struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []struct {
				Alert       string            `yaml:"alert"`
				Expr        string            `yaml:"expr"`
				For         string            `yaml:"for"`
				Labels      map[string]string `yaml:"labels"`
				Annotations map[string]string `yaml:"annotations"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	readFile(t, "../../contrib/prometheus/graphvol.rules.yaml", &r)
	families := gather(t, full())
	seen := make(map[string]bool)
	for _, g := range r.Groups {
		for _, rule := range g.Rules {
			if rule.Alert == "" || seen[rule.Alert] || rule.Annotations["summary"] == "" || rule.Labels["severity"] == "" {
				t.Errorf("%q: named twice, or without summary or severity", rule.Alert)
			}
			seen[rule.Alert] = true
			if len(namesIn(t, families, rule.Expr)) == 0 && rule.Alert != "GraphvolAgentDown" {
				t.Errorf("%s looks at no metric of graphvol", rule.Alert)
			}
			checkExpression(t, families, rule.Expr)
			if _, err := time.ParseDuration(rule.For); rule.For != "" && err != nil {
				t.Errorf("%s: %v", rule.Alert, err)
			}
		}
	}
	if len(seen) == 0 {
		t.Error("no rules")
	}
}

var selector = regexp.MustCompile(`\b(graphvol_[a-z0-9_]+)\{([^}]*)\}`)

// checkExpression looks at the labels that an expression selects by, at brackets, and whether only counters are rated.
func checkExpression(t *testing.T, families map[string]*dto.MetricFamily, expr string) {
	t.Helper()
	for _, pair := range []string{"()", "{}", "[]"} {
		if strings.Count(expr, pair[:1]) != strings.Count(expr, pair[1:]) {
			t.Errorf("%s: brackets", expr)
		}
	}
	for _, m := range selector.FindAllStringSubmatch(expr, -1) {
		f := families[strings.TrimSuffix(m[1], "_bucket")]
		for matcher := range strings.SplitSeq(m[2], ",") {
			name, value, _ := strings.Cut(matcher, "=")
			if name != "instance" && !slices.ContainsFunc(f.GetMetric(), func(m *dto.Metric) bool { return hasLabel(m, name, value) }) {
				t.Errorf("%s: %s has no %s", expr, m[1], matcher)
			}
		}
	}
	for _, m := range regexp.MustCompile(`(?:rate|increase)\((graphvol_[a-z0-9_]+)`).FindAllStringSubmatch(expr, -1) {
		if !strings.HasSuffix(m[1], "_total") && !strings.HasSuffix(m[1], "_bucket") {
			t.Errorf("%s: %s is no counter", expr, m[1])
		}
	}
}

// hasLabel tells whether a metric has a label, and its value, if that is a word in quotes.
func hasLabel(m *dto.Metric, name, value string) bool {
	return slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool {
		return l.GetName() == name && (!strings.HasPrefix(value, `"`) || strings.Trim(value, `"`) == l.GetValue())
	})
}

// readFile reads JSON, which is YAML too, or YAML.
func readFile(t *testing.T, path string, v any) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(raw, v); err != nil {
		t.Fatal(err)
	}
}
