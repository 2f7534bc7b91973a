package copies

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"graphvol/chunkstore/target/s3/s3test"
	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// TestConfig: a machine's volumes and their copies stand in one file; with it and a key another machine has them again.
func TestConfig(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"b1", "m1", "b2", "m2"} {
		if err := os.Mkdir(in(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	bucket := s3test.Start(t).URL("graph")
	conf := in("graphvol.yaml")
	text := fmt.Sprintf(`volumes:
  - backing: %[1]s/b1
    mount: %[1]s/m1
    state: %[1]s/s1
    copies:
      - targets: ["%[2]s"]
      - targets: ["dir:%[1]s/x", "dir:%[1]s/y", "dir:%[1]s/z"]
        erasure: 2+1
        encrypt: no
    upload-limit: 500MiB/s
  - backing: %[1]s/b2
    mount: %[1]s/m2
`, dir, bucket)
	u := &user{Volume: rig.NewVolume(t, volume.Options{}), t: t, want: map[string]map[string]string{}}
	u.must(os.WriteFile(conf, []byte(text+"    colour: red\n"), 0o600))
	u.refused([]string{conf, "line 13", "colour"}, "mount", "--config", conf)
	u.must(os.WriteFile(conf, []byte(text), 0o600))
	u.refused([]string{"no volume with the mount point /nowhere", in("m2")}, "mount", "--config", conf, "/nowhere")

	t.Cleanup(func() {
		for _, m := range []string{in("m1"), in("m2")} {
			_, _ = u.Run(context.Background(), "umount", m) // most are unmounted by then
		}
	})
	if out := u.run("mount", "--config", conf, in("m1")); !strings.Contains(out, in("m1")) || strings.Contains(out, in("m2")) {
		t.Errorf("mounted: %s", out)
	}
	if out := u.run("mount", "--config", conf); !strings.Contains(out, in("m2")) || strings.Contains(out, in("m1")) {
		t.Errorf("mounted then: %s", out)
	}
	rig.WriteFile(t, filepath.Join(in("m1"), "data"), 3<<20)
	u.run("snapshot", in("m1"), "--name", "a")
	u.run("sync", in("m1"), "--wait")
	rows := u.remotes(in("m1"))
	if len(rows) != 2 || !rows[0].Encrypted || rows[1].Encrypted || rows[0].Snapshots != 1 || rows[1].Snapshots != 1 {
		t.Errorf("copies: %+v", rows)
	}
	recovery := in("recovery")
	u.must(os.WriteFile(recovery, []byte(u.run("key", "recovery", in("m1"), "--copy", rows[0].Name)), 0o600))
	u.want["a"] = content(t, in("b1"))
	u.run("umount", in("m1"))
	u.run("umount", in("m2"))

	u.refused([]string{"no copies"}, "attach", "--config", conf, in("m2"), in("elsewhere"))
	u.run("attach", "--config", conf, in("m1"), in("elsewhere"), "--key", recovery)
	u.restored(in("elsewhere"))
}
