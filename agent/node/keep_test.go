package node

import (
	"maps"
	"strings"
	"testing"

	"graphvol/agent/config"
)

// TestJobs: what is due when. Space is given back once a day where a policy deletes snapshots, unless it is said when, or never.
func TestJobs(t *testing.T) {
	const volume = "volumes:\n  - {name: graph, backing: /b, mount: /m"
	for _, test := range []struct {
		text string
		want map[string]string
	}{
		{volume + "}\n", map[string]string{}},
		{volume + ", schedule: \"@hourly\"}\n", map[string]string{"graph": "@hourly"}},
		{volume + ", schedule: \"@hourly\", keep: {last: 3}}\n", map[string]string{"graph": "@hourly", "prune graph": dailyPrune}},
		{volume + "}\ncluster: {schedule: \"@daily\", keep: {daily: 7}}\n", map[string]string{"cluster": "@daily", "prune graph": dailyPrune}},
		{volume + ", keep: {last: 3}, prune: never}\n", map[string]string{}},
		{volume + ", prune: \"@weekly\"}\n", map[string]string{"prune graph": "@weekly"}},
	} {
		f, err := config.Parse([]byte(test.text))
		if err != nil {
			t.Fatal(err)
		}
		c, err := newCurrent(f, config.Central{})
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[string]string)
		for j, times := range c.jobs() {
			if times != "" {
				got[j.String()] = times
			}
		}
		if !maps.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.text, got, test.want)
		}
	}
	for _, bad := range []string{", schedule: now}\n", ", prune: sometimes}\n"} {
		f, err := config.Parse([]byte(volume + bad))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := newCurrent(f, config.Central{}); err == nil || !strings.Contains(err.Error(), "graph") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
