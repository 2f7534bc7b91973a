package placement

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func rules(t *testing.T, texts ...string) []Rule {
	t.Helper()
	var out []Rule
	for _, text := range texts {
		r, err := ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		if r.String() != text {
			t.Errorf("%s is written %s", text, r)
		}
		out = append(out, r)
	}
	return out
}

func TestParseRuleRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"a":            "write it as OLD=NEW",
		"":             "write it as OLD=NEW",
		"a=b=c":        "write it as OLD=NEW",
		"=b":           "missing before the =",
		":v=b:v":       "missing before the =",
		"a:=b":         "missing before the =",
		"a=":           "missing after the =; to leave it out write a=-",
		"a:v=":         "missing after the =; to leave it out write a:v=-",
		"a:v=b:":       "missing after the =",
		"a:v=-:v":      "to leave it out write a:v=-",
		"a:v=:w":       "missing after the =",
		"a:v=b":        "a volume goes to a volume",
		"a=b:v":        "a volume goes to a volume",
		"a:/m/=x=b:/m": "write it as OLD=NEW",
	} {
		if r, err := ParseRule(text); err == nil || !strings.HasPrefix(err.Error(), "--map "+text+": ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v, want %s", text, r, err, want)
		}
	}
}

func FuzzParseRule(f *testing.F) {
	for _, seed := range []string{"a=b", "a=-", "a:v=b:w", "a:v=-", "a:/m:x=b:/m", "-=-", "=:"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if r, err := ParseRule(text); err == nil && r.String() != text {
			t.Errorf("%q is written %q", text, r)
		}
	})
}

// three is a snapshot of three nodes, and where a graph with two copies had its partitions.
func three() ([]Node, Map) {
	return []Node{{"a", []string{"graph"}}, {"b", []string{"graph", "/mnt/wal"}}, {"c", []string{"graph"}}},
		Map{"1": {"a", "b"}, "2": {"b", "c"}, "3": {"c", "a"}}
}

// TestRemap writes plans as JSON, and what is warned of.
func TestRemap(t *testing.T) {
	for _, c := range []struct {
		rules    []string
		restores string
		parts    string
		warnings []string
	}{
		{nil, "a:graph>a:graph b:graph>b:graph b:/mnt/wal>b:/mnt/wal c:graph>c:graph", `{"1":["a","b"],"2":["b","c"],"3":["a","c"]}`, nil},
		{[]string{"a=x", "b=y", "c=z"}, "a:graph>x:graph b:graph>y:graph b:/mnt/wal>y:/mnt/wal c:graph>z:graph", `{"1":["x","y"],"2":["y","z"],"3":["x","z"]}`, nil},
		{[]string{"a=b", "b=a", "c=c"}, "a:graph>b:graph b:graph>a:graph b:/mnt/wal>a:/mnt/wal c:graph>c:graph", `{"1":["a","b"],"2":["a","c"],"3":["b","c"]}`, nil},
		{[]string{"a=x", "b=y", "c=-"}, "a:graph>x:graph b:graph>y:graph b:/mnt/wal>y:/mnt/wal", `{"1":["x","y"],"2":["y"],"3":["x"]}`,
			[]string{"2 partitions have fewer copies than in the snapshot, first 2: b c → y"}},
		{[]string{"a=x", "b=-", "c=-"}, "a:graph>x:graph", `{"1":["x"],"3":["x"]}`,
			[]string{"1 partitions are not restored, as all their nodes are left out, first 2: b c → none", "2 partitions have fewer copies than in the snapshot, first 1: a b → x"}},
		{[]string{"a=x", "b=y", "c:graph=x:graph2"}, "a:graph>x:graph b:graph>y:graph b:/mnt/wal>y:/mnt/wal c:graph>x:graph2", `{"1":["x","y"],"2":["x","y"],"3":["x"]}`,
			[]string{"1 partitions have fewer copies than in the snapshot, first 3: a c → x"}},
		{[]string{"a=x", "b=y", "b:/mnt/wal=-", "c=z"}, "a:graph>x:graph b:graph>y:graph c:graph>z:graph", `{"1":["x","y"],"2":["y","z"],"3":["x","z"]}`, nil},
		{[]string{"a=x", "b:graph=y:graph", "b:/mnt/wal=y:/mnt/w", "c=z"}, "a:graph>x:graph b:graph>y:graph b:/mnt/wal>y:/mnt/w c:graph>z:graph", `{"1":["x","y"],"2":["y","z"],"3":["x","z"]}`, nil},
	} {
		nodes, parts := three()
		p, err := Remap(nodes, parts, rules(t, c.rules...))
		if err != nil {
			t.Errorf("%v: %v", c.rules, err)
			continue
		}
		var restores []string
		for _, r := range p.Restores {
			restores = append(restores, fmt.Sprintf("%s>%s", r.From, r.To))
		}
		if got := strings.Join(restores, " "); got != c.restores {
			t.Errorf("%v: %s, want %s", c.rules, got, c.restores)
		}
		if got, _ := json.Marshal(p.Partitions); string(got) != c.parts {
			t.Errorf("%v: %s, want %s", c.rules, got, c.parts)
		}
		if w := p.Warnings(); !slices.Equal(w, c.warnings) {
			t.Errorf("%v: %q, want %q", c.rules, w, c.warnings)
		}
		if len(p.Restores)+len(p.Dropped) != 4 {
			t.Errorf("%v: %v dropped of 4 volumes, and %v restored", c.rules, p.Dropped, p.Restores)
		}
	}
}

func TestRemapRefuses(t *testing.T) {
	for want, texts := range map[string][]string{
		"--map says nothing of c:graph: say where each goes, as --map c=NODE, or leave it out with --map c=-":             {"a=a", "b=b"},
		"--map says nothing of b:/mnt/wal: say where each goes, as --map b=NODE, or leave it out with --map b=-":          {"a=a", "b:graph=b:graph", "c=c"},
		"--map says nothing of a:graph, b:graph, b:/mnt/wal: say where each goes":                                         {"c=x"},
		"--map d=x: the snapshot has no d: it has a, a:graph, b, b:graph, b:/mnt/wal, c, c:graph":                         {"d=x"},
		"--map a:wal=x:wal: the snapshot has no a:wal: it has ":                                                           {"a:wal=x:wal"},
		"--map a=y: there is --map a=x too":                                                                               {"a=x", "a=y", "b=b", "c=c"},
		"--map a=-: there is --map a=x too":                                                                               {"a=x", "a=-", "b=b", "c=c"},
		"--map a=x: there is --map a=- too":                                                                               {"a=-", "a=x", "b=b", "c=c"},
		"a:graph and c:graph would both be restored to x:graph: give one of them another volume (--map c:graph=x:VOLUME)": {"a=x", "b=y", "c=x"},
		"the volumes of node b would be restored to x and y: they belong together, so give them one node":                 {"a=a", "b:graph=x:graph", "b:/mnt/wal=y:wal", "c=c"},
		"nothing would be restored: all is left out":                                                                      {"a=-", "b=-", "c=-"},
	} {
		nodes, parts := three()
		if p, err := Remap(nodes, parts, rules(t, texts...)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v: %+v, %v, want %s", texts, p, err, want)
		}
	}
}

// TestRemapUnknown has a database with names of its own for some nodes.
func TestRemapUnknown(t *testing.T) {
	nodes, _ := three()
	p, err := Remap(nodes, Map{"1": {"10.0.0.1:9779", "a"}}, rules(t, "a=x", "b=y", "c=z"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Partitions["1"], []string{"10.0.0.1:9779", "x"}) || len(p.Fewer)+len(p.Lost) != 0 {
		t.Errorf("%+v", p)
	}
	if w := p.Warnings(); len(w) != 1 || !strings.Contains(w[0], "on 10.0.0.1:9779, which are no nodes of the snapshot") {
		t.Errorf("%q", w)
	}
}
