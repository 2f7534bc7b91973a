package graphmeta

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const whole = `{
	"version": "17", "in_progress": " ",
	"edge_types": [{"name": "knows", "properties": {"since": "date", "1": [1.50, true, null]}}, "follows"],
	"vertex_types": ["Person", {"name": "City"}],
	"partitions": {"2": ["b", "a"], "1": ["c"]},
	"spaces": "<social> \u00e9\u2028\u0001\b\n\"\\"
}`

// canonical is written by hand, and its SHA-256 was computed by sha256sum: neither may change.
const (
	canonical = `{"edge_types":["follows",{"name":"knows","properties":{"1":[1.50,true,null],"since":"date"}}],` +
		`"partitions":{"1":["c"],"2":["a","b"]},"spaces":"<social> é` + "\u2028" + `\u0001\b\n\"\\","version":"17","vertex_types":["City","Person"]}`
	digest = "a0737f4e384db8dc4188f14527d3805a519df0b31ad3d57335922b8b4f2b7626"
)

func decode(t *testing.T, text string) *Meta {
	t.Helper()
	m, err := Decode([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return m
}

func TestCanonical(t *testing.T) {
	m := decode(t, whole)
	if got := string(m.Encode()); got != canonical {
		t.Errorf("%s\nwant\n%s", got, canonical)
	}
	if m.Digest() != digest {
		t.Errorf("digest %s, want %s", m.Digest(), digest)
	}
	if m.Version != "17" || m.VertexTypes[0].Name != "City" || m.EdgeTypes[1].Name != "knows" || !slices.Equal(m.Partitions["2"], []string{"a", "b"}) || m.InProgress != "" {
		t.Errorf("%+v", m)
	}
	made := &Meta{Version: "1", EdgeTypes: []Type{{Name: "b"}, {Name: "a"}}, Partitions: map[string][]string{"p": {"z", "y"}}}
	if got, want := string(made.Encode()), `{"edge_types":["a","b"],"partitions":{"p":["y","z"]},"version":"1"}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestInJSON has a graph as part of something else, as manifests have it.
func TestInJSON(t *testing.T) {
	type manifest struct {
		Metadata Meta
		Others   []*Meta
	}
	m := decode(t, whole)
	p, err := json.MarshalIndent(manifest{*m, []*Meta{m}}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	var back manifest
	if err := json.Unmarshal(p, &back); err != nil {
		t.Fatal(err)
	}
	if back.Metadata.Digest() != digest || back.Others[0].Digest() != digest {
		t.Errorf("%s", p)
	}
	if err := json.Unmarshal([]byte(`{"Metadata": {"version": 1}}`), &back); err == nil {
		t.Error("nonsense is taken")
	}
}

func TestDecodeRefuses(t *testing.T) {
	long := strings.Repeat("x", maxName+1)
	for text, want := range map[string]string{
		"":                                 "it is empty",
		" \n":                              "it is empty",
		"\xff":                             "it is no UTF-8 text",
		"[]":                               "it is a list, and must be a JSON object",
		"17":                               "it is a number, and must be a JSON object",
		"true":                             "it is true or false, and must be a JSON object",
		`"a"`:                              "it is a text, and must be a JSON object",
		"null":                             "it is missing, and must be a JSON object",
		"{":                                "line 1: unexpected end of JSON input",
		"{\"version\":\n\n":                "line 3: unexpected end of JSON input",
		`{"version": "1", "edge_types": [`: "line 1: unexpected end of JSON input",
		"{\n1: 2}":                         "line 2: ",
		"{\n\"version\":\n\noops}":         "line 4: invalid character 'o' looking for beginning of value",
		"{\"version\": \"1\"}\n{}":         "line 2: invalid character '{' after top-level value",
		"{\"version\": \"1\",\n\"a\": {\"b\": 1,\n\"b\": 1}}":                             `line 3: the key "b" comes twice`,
		`{"a":` + strings.Repeat("[", 1<<20):                                              "line 1: invalid character '[' exceeded max depth",
		`{"version":"1","a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "}": "line 1: lists and objects lie more than 100 deep in each other",
		strings.Repeat(" ", MaxLength) + "{}":                                             "it has more than 16777216 bytes",
		"{}":                                                                              "version is missing: it must be a text that changes whenever types or partitions do",
		`{"version": 17}`:                                                                 `version is a number, and must be a text, as "17"`,
		`{"version": ""}`:                                                                 "version is empty",
		`{"version": "a\nb"}`:                                                             `version has a control character: "a b"`,
		`{"version": "` + long + `"}`:                                                     "version has more than 1024 bytes",
		`{"Version": "1"}`:                                                                "version is missing",
		`{"version": "1", "vertexTypes": []}`:                                             `the key "vertexTypes" must be written "vertex_types"`,
		`{"version": "1", "In-Progress": "x"}`:                                            `the key "In-Progress" must be written "in_progress"`,
		`{"version": "1", "vertex_types": {}}`:                                            "vertex_types is an object, and must be a list",
		`{"version": "1", "vertex_types": [1]}`:                                           `vertex_types, element 1 is a number, and must be a text, as "17"`,
		`{"version": "1", "edge_types": ["a", {"id": 1}]}`:                                `edge_types, element 2, name is missing, and must be a text, as "17"`,
		`{"version": "1", "edge_types": ["a", {"name": "a"}]}`:                            `edge_types has "a" twice`,
		`{"version": "1", "edge_types": [""]}`:                                            "edge_types, element 1 is empty",
		`{"version": "1", "partitions": []}`:                                              `partitions is a list, and must be an object, as {"1": ["node1", "node2"]}`,
		`{"version": "1", "partitions": {"": ["a"]}}`:                                     "a partition's id is empty",
		`{"version": "1", "partitions": {"1": "a"}}`:                                      "partition 1 is a text, and must be the list of its nodes",
		`{"version": "1", "partitions": {"1": []}}`:                                       "partition 1 is on no node",
		`{"version": "1", "partitions": {"1": ["a", 1]}}`:                                 `partition 1, node 2 is a number, and must be a text, as "17"`,
		`{"version": "1", "partitions": {"1": ["b", "a", "b"]}}`:                          `partition 1 has node "b" twice`,
		`{"version": "1", "in_progress": true}`:                                           "in_progress is true or false, and must be a text: what is changing the graph, or nothing",
	} {
		m, err := Decode([]byte(text))
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.50q: %+v, %v, want %q", text, m, err, want)
		}
	}
}

func TestDecodeTakes(t *testing.T) {
	for text, want := range map[string]string{
		`{"version": "1"}`: `{"version":"1"}`,
		`{"version": "1", "vertex_types": null, "edge_types": [], "partitions": {}, "in_progress": null}`: `{"version":"1"}`,
		`{"version": "1", "partitions": null, "in_progress": "job 7"}`:                                    `{"in_progress":"job 7","version":"1"}`,
		`{"version": "1", "types": {"version": 2}, "n": 1e999999}`:                                        `{"n":1e999999,"types":{"version":2},"version":"1"}`,
		"\n{\"version\"\t:\"1\"}\n": `{"version":"1"}`,
	} {
		if got := string(decode(t, text).Encode()); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestQuiet(t *testing.T) {
	if err := decode(t, whole).Quiet(); err != nil {
		t.Error(err)
	}
	err := decode(t, `{"version": "1", "in_progress": "balance job 12,\n 40 % done"}`).Quiet()
	if !errors.Is(err, ErrInProgress) || err.Error() != "the graph is being changed: balance job 12, 40 % done" {
		t.Error(err)
	}
	err = decode(t, `{"version": "1", "in_progress": "`+strings.Repeat("é", 1000)+`"}`).Quiet()
	if !strings.HasSuffix(err.Error(), ": "+strings.Repeat("é", 200)+"…") {
		t.Error(err)
	}
}

func TestCompare(t *testing.T) {
	many := make([]string, 12)
	for i := range many {
		many[i] = fmt.Sprintf(`"t%02d"`, i)
	}
	for _, c := range []struct{ before, after, want string }{
		{whole, canonical, ""},
		{`{"version": "1"}`, `{"version": "2"}`, "version was 1 and is 2"},
		{`{"version": "1", "vertex_types": ["a", "b"]}`, `{"version": "1", "vertex_types": [{"name": "b", "id": 7}, "c"]}`, "vertex types: added c, removed a, changed b"},
		{`{"version": "1"}`, `{"version": "1", "edge_types": [` + strings.Join(many, ",") + `]}`, "edge types: added t00 t01 t02 t03 t04 and 7 more"},
		{`{"version": "1", "partitions": {"1": ["a", "b"], "2": ["a"], "3": ["a"]}}`, `{"version": "2", "partitions": {"1": ["b", "c"], "3": ["a"], "4": ["a"]}}`,
			"version was 1 and is 2; partitions: added 4, removed 2, moved 1"},
		{`{"version": "1", "partitions": {"1": ["a", "b"]}}`, `{"version": "1", "partitions": {"1": ["b", "a"]}}`, ""},
		{`{"version": "1", "indexes": [1]}`, `{"version": "1", "indexes": [2], "x\ny": 1}`, "other keys: added x y, changed indexes"},
		{`{"version": "1"}`, `{"version": "1", "in_progress": "job"}`, "in progress is job"},
		{`{"version": "1", "in_progress": "job"}`, `{"version": "1"}`, "nothing is in progress any more"},
	} {
		if got := Compare(decode(t, c.before), decode(t, c.after)); got != c.want {
			t.Errorf("%s to %s: %q, want %q", c.before, c.after, got, c.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(whole), []byte(canonical))
	f.Add([]byte(`{"version":"1","x":"\ud800"}`), []byte(`{"version":"1","in_progress":"a\nb"}`))
	f.Fuzz(func(t *testing.T, p, q []byte) {
		m, err := Decode(p)
		if err != nil {
			if strings.ContainsFunc(err.Error(), unicode.IsControl) {
				t.Errorf("%q isn't a line", err)
			}
			return
		}
		form := m.Encode()
		again, err := Decode(form)
		if err != nil || string(again.Encode()) != string(form) {
			t.Fatalf("%s is decoded to %v, %v", form, again, err)
		}
		if d := Compare(m, again); d != "" {
			t.Errorf("%s differs from itself: %s", form, d)
		}
		if other, err := Decode(q); err == nil {
			d := Compare(m, other)
			if (d == "") != (m.Digest() == other.Digest()) || strings.ContainsFunc(d, unicode.IsControl) {
				t.Errorf("%s and %s: %q", form, other.Encode(), d)
			}
		}
	})
}
