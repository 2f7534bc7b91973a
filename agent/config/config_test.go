package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const whole = `# a comment
volumes:
  - backing: /srv/graph
    mount: /mnt/graph
    state: /var/lib/graphvol/graph
    cache: through
    snapdir: .old
    allow-suid: true
    allow-dev: true
    no-exec: true
    private: true
    log-level: debug
    hang-timeout: 0s
    snapshot:
      timeout: 300s
      max-concurrent: 2
      settle-after: 1m
    copies:
      - targets: ["s3://backups/graph?endpoint=s3.example.com"]
      - targets: [dir:/a/graph, dir:/b/graph, dir:/c/graph]
        erasure: 2+1
        encrypt: yes
    upload-limit: 20MiB/s
    scrub:
      every: 168h
      limit: 50M
  - backing: /srv/other
    mount: /srv/other
`

func TestParse(t *testing.T) {
	got, err := Parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	never, minute, week := time.Duration(0), time.Minute, 7*24*time.Hour
	want := &File{Volumes: []Volume{
		{
			Backing: "/srv/graph", Mount: "/mnt/graph", State: "/var/lib/graphvol/graph", Cache: "through", SnapDir: ".old",
			AllowSuid: true, AllowDev: true, NoExec: true, Private: true, LogLevel: "debug", HangTimeout: &never,
			Snapshot: Snapshot{Timeout: 5 * time.Minute, MaxConcurrent: 2, SettleAfter: &minute},
			Copies: []Copy{
				{Targets: []string{"s3://backups/graph?endpoint=s3.example.com"}},
				{Targets: []string{"dir:/a/graph", "dir:/b/graph", "dir:/c/graph"}, Erasure: "2+1", Encrypt: "yes"},
			},
			UploadLimit: "20MiB/s", Scrub: Scrub{Every: &week, Limit: "50M"},
		},
		{Backing: "/srv/other", Mount: "/srv/other"},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if v, err := got.Find("/mnt/graph/"); err != nil || v.Backing != "/srv/graph" {
		t.Errorf("found %+v, %v", v, err)
	}
	if _, err := got.Find("/mnt/nothing"); err == nil || !strings.Contains(err.Error(), "/mnt/graph, /srv/other") {
		t.Errorf("not there: %v", err)
	}
	for _, empty := range []string{"", "# nothing\n", "volumes: []\n"} {
		if c, err := Parse([]byte(empty)); err != nil || len(c.Volumes) != 0 {
			t.Errorf("%q: %+v, %v", empty, c, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const head = "volumes:\n  - backing: /b\n    mount: /m\n"
	for text, want := range map[string]string{
		"volumes:\n  - mount: /m\n":                                                    "volume 1: backing is missing",
		"volumes:\n  - backing: /b\n":                                                  "volume 1: mount is missing",
		"volumes:\n  - backing: b\n    mount: /m\n":                                    "only absolute paths",
		head + "    state: $HOME/x\n":                                                  "only absolute paths",
		head + "    colour: red\n":                                                     `line 4: unknown field "colour"`,
		head + "    mount: /n\n":                                                       "line 4: ",
		head + "    hang-timeout: soon\n":                                              `invalid duration "soon": write it as`,
		head + "    snapshot: 3\n":                                                     "line 4: ",
		head + "    snapshot:\n      max-concurrent: many\n":                           "line 5: ",
		head + "    copies:\n      - erasure: 4+2\n":                                   "copy 1 has no targets",
		head + "  - backing: /b/\n    mount: /n\n":                                     "is used by volume 1 (/b) too",
		head + "  - backing: /c\n    mount: /m\n":                                      "is used by volume 1 (/b) too",
		head + "    name: a/b\n":                                                       `name "a/b"`,
		head + "    name: a\n  - {backing: /c, mount: /n, name: a}\n":                  "is that of volume 1 (/b) too",
		head + "    hooks: {pre: [{command: [sync]}]}\n":                               "volume 1: hooks: sync: only absolute paths",
		head + "    hooks: {post: [{timeout: 3s}]}\n":                                  "a hook has no command",
		head + "    hooks: {pre: [{command: [/bin/true], timeout: -1s}]}\n":            "can't be negative",
		"node: {name: -a}\n":                                                           `node: name "-a"`,
		"node: {listen: here}\n":                                                       "write it as HOST:PORT",
		"node: {listen: \"10.0.0.1:7440\"}\n":                                          "needs tls",
		"node: {state: x}\n":                                                           "only absolute paths",
		"node: {tls: {ca: /ca}}\n":                                                     "needs all of ca, cert and key",
		"etcd: {endpoints: [\"http://e:2379\"], listen: \"http://127.0.0.1:1\"}\n":     "choose one",
		"etcd: {listen: \"http://10.0.0.1:7441\"}\n":                                   "needs https",
		"etcd: {client: \"127.0.0.1:7441\"}\n":                                         "write it as https://HOST:PORT",
		"node: {name: c}\netcd: {members: {a: \"https://a:1\", b: \"https://b:1\"}}\n": "no URL of this node",
		"cluster: {name: a b}\n":                                                       `cluster: name "a b"`,
		"cluster: {hold-timeout: -1s}\n":                                               "can't be negative",
		"metadata: {command: [/bin/x], file: /f}\n":                                    "one of command, file and postgres",
		"metadata: {command: [cat, /f]}\n":                                             `metadata: command "cat": only absolute paths`,
		"metadata: {postgres: {dsn: x}}\n":                                             "needs dsn and query",
		"preflight: {free-space: much}\n":                                              `free-space "much" is no size`,
		head + "---\nvolumes: []\n":                                                    "one YAML document",
		"volumes: [":                                                                   "line 1: ",
		"volumes:\n\t- backing: /b\n":                                                  "line 2: ",
		"- backing: /b\n":                                                              "line 1: ",
		"just words":                                                                   "line 1: ",
		"volumes: &a\n  - backing: /b\n    mount: /m\n    copies: *a\n":                "",
	} {
		c, err := Parse([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %+v, %v, want %q", text, c, err, want)
		}
	}
}

func TestParseNode(t *testing.T) {
	c, err := Parse([]byte(`
node:
  name: a
  listen: 10.1.0.1:7440
  tls: {ca: /etc/graphvol/ca.crt, cert: /etc/graphvol/a.crt, key: /etc/graphvol/a.key}
  metrics: 127.0.0.1:7443
etcd:
  listen: https://10.1.0.1:7441
  members: {a: "https://10.1.0.1:7441", b: "https://10.1.0.2:7441"}
cluster: {name: graph, nodes: [a, b], timeout: 300s, hold-timeout: 1s, max-concurrent: 2, schedule: "0 * * * *", keep: {last: 3, tags: [release]}}
metadata: {file: /srv/graph/schema.json, timeout: 5s}
preflight: {ntp: [time.example.com], free-space: 10GiB}
volumes:
  - {backing: /srv/graph, mount: /mnt/graph, hooks: {pre: [{command: [/bin/sync, -f], timeout: 3s}]}}
  - {backing: /srv/other, mount: /mnt/other, name: other}
`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Node.Name != "a" || c.Etcd.Members["b"] != "https://10.1.0.2:7441" || c.Cluster.HoldTimeout != time.Second || c.Cluster.Keep.Last != 3 {
		t.Errorf("%+v %+v %+v", c.Node, c.Etcd, c.Cluster)
	}
	if !c.Metadata.Set() || c.Volumes[0].Hooks.Pre[0].Timeout != 3*time.Second {
		t.Errorf("%+v %+v", c.Metadata, c.Volumes[0].Hooks)
	}
	if n, err := c.Preflight.LeastFree(); n != 10<<30 || err != nil {
		t.Errorf("free space: %d, %v", n, err)
	}
	if n, err := new(Preflight).LeastFree(); n != 1<<30 || err != nil {
		t.Errorf("free space if it isn't said: %d, %v", n, err)
	}
	if a, b := c.Volumes[0].Label(), c.Volumes[1].Label(); a != "/mnt/graph" || b != "other" {
		t.Errorf("labels %q, %q", a, b)
	}
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "graphvol.yaml")
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("not there: %v", err)
	}
	for text, want := range map[string]string{whole: "", "": path + " is empty", "\x00\x00\n": path + " is empty", "volume: []\n": path + ": line 1: ", strings.Repeat("# long\n", maxFile/7+1): "more than"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("volumes: &a\n  - *a\n"))
	f.Fuzz(func(t *testing.T, p []byte) {
		if c, err := Parse(p); err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: more than a line: %v", c, err)
		}
	})
}

// TestInForce: an agent's state directory says what is in force, and no file but a node's own asks it.
func TestInForce(t *testing.T) {
	dir := t.TempDir()
	parse := func(text string) *File {
		t.Helper()
		f, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	own := parse("node: {name: a, state: " + dir + "}\ncluster: {name: social}\nvolumes:\n  - {name: own, backing: /b, mount: /m}\n")
	check := func(f *File, volume string, revision int64) {
		t.Helper()
		got, rev, err := f.InForce()
		if err != nil || rev != revision || len(got.Volumes) != 1 || got.Volumes[0].Name != volume || got.Node.Name != f.Node.Name || got.Cluster.Name != f.Cluster.Name {
			t.Errorf("%+v of revision %d, %v; want the volume %s of revision %d", got, rev, err, volume, revision)
		}
	}
	check(own, "own", 0)
	const central = "volumes:\n  - {name: central, backing: /b, mount: /m}\n"
	keep := func(k Central) {
		t.Helper()
		if err := k.Keep(dir); err != nil {
			t.Fatal(err)
		}
	}
	keep(Central{Text: central, Revision: 7})
	check(own, "central", 7)
	check(parse(central), "central", 0) // what is about to be set
	keep(Central{})
	check(own, "own", 0)
	for text, want := range map[string]string{"node: {name: b}\n": "belong into each node's own file", "cluster: {name: other}\n": "the name other", "bogus: 1\n": "bogus"} {
		keep(Central{Text: text, Revision: 8})
		if _, _, err := own.InForce(); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "revision 8") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, keptName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := own.InForce(); err == nil || !strings.Contains(err.Error(), keptName) {
		t.Errorf("a file that is damaged: %v", err)
	}
}
