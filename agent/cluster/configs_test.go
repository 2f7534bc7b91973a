package cluster

import (
	"fmt"
	"testing"

	"graphvol/agent/config"
)

// What a node has kept of the centre is given up for another in its place, or because it was removed, and not because etcd doesn't know of it.
func TestCentreLost(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		kept   config.Central
		centre Centre
		want   bool
	}{
		{"nothing was kept", config.Central{}, Centre{}, false},
		{"own", config.Central{Node: "b", Text: "x", Revision: 5}, Centre{}, true},
		{"own, and there is one for all", config.Central{Node: "b", Text: "x", Revision: 5}, Centre{All: config.Central{Node: "", Text: "y", Revision: 2}}, true},
		{"own, replaced", config.Central{Node: "b", Text: "x", Revision: 5}, Centre{Own: config.Central{Node: "b", Text: "y", Revision: 2}}, false},
		{"own, removed", config.Central{Node: "b", Text: "x", Revision: 5}, Centre{Own: config.Central{Node: "b", Text: "", Revision: 2}}, false},
		{"of all", config.Central{Node: "", Text: "x", Revision: 5}, Centre{}, true},
		{"of all, replaced", config.Central{Node: "", Text: "x", Revision: 5}, Centre{All: config.Central{Node: "", Text: "y", Revision: 2}}, false},
		{"of all, removed", config.Central{Node: "", Text: "x", Revision: 5}, Centre{All: config.Central{Node: "", Text: "", Revision: 2}}, false},
		{"of all, and there is an own one", config.Central{Node: "", Text: "x", Revision: 5}, Centre{Own: config.Central{Node: "b", Text: "y", Revision: 2}}, false},
		{"of all, and an own one was removed", config.Central{Node: "", Text: "x", Revision: 5}, Centre{Own: config.Central{Node: "b", Text: "", Revision: 2}}, true},
	} {
		if got := c.centre.Lost(c.kept); got != c.want {
			t.Errorf("%s: lost is %v", c.name, got)
		}
	}
}

// Of each configuration the newest is put back, and what the centre has stays.
func TestConfigsRestored(t *testing.T) {
	t.Parallel()
	configs, ctx := NewConfigs(startEtcd(t), "x"), t.Context()
	old, all, b, c := config.Central{Node: "", Text: "old", Revision: 3}, config.Central{Node: "", Text: "all", Revision: 7}, config.Central{Node: "b", Text: "b's", Revision: 4}, config.Central{Node: "c", Text: "c's", Revision: 5}
	for _, r := range []Applied{{Node: "a", Kept: &old}, {Node: "b", Kept: &b}, {Node: "c", Kept: &c}, {Node: "d", Kept: &all}, {Node: "e", Kept: &all}, {Node: "f"}} {
		if err := configs.Report(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := configs.Set(ctx, config.Central{Node: "c"}, -1); err != nil { // it was removed
		t.Fatal(err)
	}
	for _, dry := range []bool{true, false} {
		got, err := configs.Restore(ctx, dry)
		text := ""
		for _, r := range got {
			text += fmt.Sprintf("%s=%s from %v older %v; ", r.Node, r.Text, r.From, r.Older)
			if (r.Now == 0) != dry {
				t.Errorf("dry run %v: revision %d", dry, r.Now)
			}
		}
		want := "=all from [d e] older [a]; b=b's from [b] older []; "
		if err != nil || text != want {
			t.Errorf("dry run %v: %v, %q, want %q", dry, err, text, want)
		}
	}
	for node, want := range map[string]string{"": "all", "b": "b's", "c": ""} {
		if got, err := configs.Get(ctx, node); err != nil || got.Text != want {
			t.Errorf("%q: %v, %+v", node, err, got)
		}
	}
	if got, err := configs.Restore(ctx, false); err != nil || len(got) > 0 {
		t.Errorf("again: %v, %+v", err, got)
	}
}
