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
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
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

// expression is one of PromQL.
type expression struct {
	parser.Expr
	text string
}

// parse reads an expression. Grafana's variables stand for lengths of time and parts of labels.
func parse(t *testing.T, text string) expression {
	t.Helper()
	plain := regexp.MustCompile(`\$(__)?[a-z_]+`).ReplaceAllString(text, "5m")
	e, err := parser.ParseExpr(plain)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return expression{e, text}
}

// check finds the metrics that an expression names. They must be there, with the labels that it selects by, and only counters have a rate.
func (e expression) check(t *testing.T, families map[string]*dto.MetricFamily) (names []string) {
	t.Helper()
	parser.Inspect(e.Expr, func(node parser.Node, path []parser.Node) error {
		v, ok := node.(*parser.VectorSelector)
		if !ok || !strings.HasPrefix(v.Name, "graphvol_") {
			return nil
		}
		f, base := family(families, v.Name)
		if f == nil {
			t.Errorf("%s: there is no metric %s", e.text, v.Name)
			return nil
		}
		names = append(names, base)
		for _, m := range v.LabelMatchers {
			if m.Name != "__name__" && m.Name != "instance" && !slices.ContainsFunc(f.GetMetric(), func(metric *dto.Metric) bool { return hasLabel(metric, m) }) {
				t.Errorf("%s: %s has no %s", e.text, v.Name, m)
			}
		}
		if rated(path) && f.GetType() == dto.MetricType_GAUGE {
			t.Errorf("%s: %s is no counter", e.text, v.Name)
		}
		return nil
	})
	return names
}

// family finds what a name belongs to: of a histogram there are several, and none has its own.
func family(families map[string]*dto.MetricFamily, name string) (f *dto.MetricFamily, base string) {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base := strings.TrimSuffix(name, suffix); base != name && families[base].GetType() == dto.MetricType_HISTOGRAM {
			return families[base], base
		}
	}
	if families[name].GetType() == dto.MetricType_HISTOGRAM {
		return nil, ""
	}
	return families[name], name
}

// rated tells whether a node's value is that of a counter, for its parents.
func rated(path []parser.Node) bool {
	return slices.ContainsFunc(path, func(n parser.Node) bool {
		c, ok := n.(*parser.Call)
		return ok && slices.Contains([]string{"rate", "irate", "increase"}, c.Func.Name)
	})
}

// hasLabel tells whether a metric has a label, and the value that is asked for; of patterns only that they fit something isn't known.
func hasLabel(metric *dto.Metric, m *labels.Matcher) bool {
	return slices.ContainsFunc(metric.GetLabel(), func(l *dto.LabelPair) bool {
		return l.GetName() == m.Name && (m.Type != labels.MatchEqual || m.Value == l.GetValue())
	})
}

// labelValues is how Grafana asks for the values of a label.
var labelValues = regexp.MustCompile(`label_values\((\w+), (\w+)\)`)

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
			for _, n := range parse(t, target.Expr).check(t, families) {
				shown[n] = true
			}
		}
	}
	for _, v := range d.Templating.List {
		for _, m := range labelValues.FindAllStringSubmatch(fmt.Sprint(v.Query), -1) {
			parse(t, m[1]+"{"+m[2]+"!=''}").check(t, families)
		}
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
			if len(parse(t, rule.Expr).check(t, families)) == 0 && rule.Alert != "GraphvolAgentDown" {
				t.Errorf("%s looks at no metric of graphvol", rule.Alert)
			}
			if _, err := time.ParseDuration(rule.For); rule.For != "" && err != nil {
				t.Errorf("%s: %v", rule.Alert, err)
			}
		}
	}
	if len(seen) == 0 {
		t.Error("no rules")
	}
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
