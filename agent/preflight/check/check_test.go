package check

import (
	"os/exec"
	"testing"
)

func TestRows(t *testing.T) {
	rows := []Row{Good("path", "/srv"), Bad("path", "/mnt", "is missing", "mkdir -p /mnt"), Bad("fuse", "/dev/fuse", "ask someone", "")}
	for i, want := range []string{"path /srv: all right", "path /mnt: is missing; fix: mkdir -p /mnt", "fuse /dev/fuse: ask someone"} {
		if got := rows[i].String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if f := Failed(rows); len(f) != 2 || f[0] != rows[1] || f[1] != rows[2] {
		t.Errorf("failed: %v", f)
	}
}

// TestQuote: a shell gives back what was quoted.
func TestQuote(t *testing.T) {
	for _, s := range []string{"/srv/graph", "", " ", "a b", "it's", `"$HOME" \ ; rm -rf *`, "a\nb", "~", "ü", "-x"} {
		out, err := exec.Command("sh", "-c", "printf %s "+Quote(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q quoted is %s, which a shell reads as %q, %v", s, Quote(s), out, err)
		}
	}
	if got := Quote("/srv/graph"); got != "/srv/graph" {
		t.Errorf("got %s", got)
	}
}
