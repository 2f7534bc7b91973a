package copies

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"graphvol/integration/volume"
)

// TestTargetCheck: what can't be a target is told before a copy depends on it, and a check changes nothing.
func TestTargetCheck(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			url := k.url(t)
			u := newUser(t, volume.Options{Args: k.args(url)})
			u.snapshot("a")
			u.run("sync", u.Mount, "--wait")
			if out := u.run("target", "list", u.Mount); !strings.Contains(out, "copy r1: "+url) || strings.Contains(out, "encrypted") != k.encrypt {
				t.Errorf("list: %s", out)
			}
			var checked struct {
				Targets []struct {
					URL   string
					OK    bool
					Found string
					Steps []struct{ Name string }
				}
			}
			u.must(json.Unmarshal([]byte(u.run("target", "check", u.Mount, "--json")), &checked))
			if c := checked.Targets; len(c) != 1 || c[0].URL != url || !c[0].OK || len(c[0].Steps) != 10 || !strings.Contains(c[0].Found, "copy of volume") || strings.Contains(c[0].Found, "encrypted") != k.encrypt {
				t.Errorf("%+v", checked)
			}
			if strings.HasPrefix(url, "s3:") {
				t.Setenv("AWS_SECRET_ACCESS_KEY", "not-it")
				u.refused([]string{"1 of 1 target can't be used"}, "target", "check", url)
			}
		})
	}
}

func TestTargetCheckRefuses(t *testing.T) {
	u := newUser(t, volume.Options{})
	u.refused([]string{"no copies elsewhere", "--target"}, "target", "check", u.Mount)
	u.refused([]string{"2 of 3 targets can't be used"}, "target", "check", "dir:"+filepath.Join(t.TempDir(), "not", "there"), "dir:relative", "dir:"+filepath.Join(t.TempDir(), "good"))
	typo := filepath.Join(t.TempDir(), "grpah")
	u.refused([]string{"no such directory", "correct the path"}, "attach", "dir:"+typo, filepath.Join(t.TempDir(), "state"))
	if _, err := os.Stat(typo); !os.IsNotExist(err) {
		t.Errorf("attaching has made %s: %v", typo, err)
	}
	u.refused([]string{"does not exist"}, "target", "check", filepath.Join(t.TempDir(), "x"))
}
