package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"graphvol/agent/config"
	"graphvol/agent/pki"
)

func TestCert(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	for _, c := range []struct {
		line string
		code int
		out  string
		err  string
	}{
		{"cert node DIR a", exitFailed, "", "there is no CA in DIR: make one with graphvol cert ca\n"},
		{"cert ca DIR --name graph", exitDone, "wrote DIR/ca.crt and DIR/ca.key\n", ""},
		{"cert ca DIR", exitFailed, "", "graphvol: DIR/ca.crt is there already, and nothing was changed"},
		{"cert node DIR a --host 10.1.0.1 --host a.example.com --days 30", exitDone, "wrote DIR/a.crt and DIR/a.key\n", ""},
		{"cert node DIR a/b", exitFailed, "", `name "a/b": letters`},
		{"cert node DIR b --host b:7440", exitFailed, "", `host "b:7440"`},
		{"cert operator DIR eve", exitDone, "wrote DIR/eve.crt and DIR/eve.key\n", ""},
		{"cert", exitUsage, "", "choose one of the commands below cert"},
		{"cert node DIR", exitUsage, "", "node takes DIR and NAME"},
		{"cert operator DIR eva --days 0", exitUsage, "", "--days must be between 1 and"},
		{"cert node DIR c --days 99999", exitUsage, "", "--days must be between 1 and"},
	} {
		a, out, errOut := newApp(t, &fakeVolume{})
		code := a.run(t.Context(), strings.Fields(strings.ReplaceAll(c.line, "DIR", dir)))
		gotOut, gotErr := strings.ReplaceAll(out.String(), dir, "DIR"), strings.ReplaceAll(errOut.String(), dir, "DIR")
		if code != c.code || gotOut != c.out || !strings.Contains(gotErr, c.err) {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", c.line, code, gotOut, gotErr)
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	f, err := pki.Open(config.TLS{CA: in("ca.crt"), Cert: in("a.crt"), Key: in("a.key")}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.CheckNode("a"); err != nil {
		t.Error(err)
	}
	if d := time.Until(f.Expires()); d < 29*day || d > 30*day {
		t.Errorf("valid for %v", d)
	}
	if _, err := os.Stat(in("c.crt")); err == nil {
		t.Error("a refused command has made a certificate")
	}
}
