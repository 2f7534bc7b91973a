package agent

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// FuzzDecodeFacts: volume.json is read, is damaged, or is newer. What is read can be written, and is the same then.
func FuzzDecodeFacts(f *testing.F) {
	dir := f.TempDir()
	if err := WriteFacts(dir, Facts{Backing: "/srv/a b\"c", Mount: "/mnt/ü", Cache: CacheThrough, SnapDir: ".snap", Mounted: time.Unix(1764036981, 5).UTC(), HolderPID: 4711}); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(dir + "/" + factsName)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(whole), string(whole[:len(whole)/2]), "", "null", "{}", `{"format_version":2}`, `{"format_version":-1,"holder_pid":-1}`, `{"mounted":"0000-00-00T00:00:00Z"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		facts, err := decodeFacts(dir, b)
		if err != nil {
			if !errors.Is(err, ErrNewerFormat) && !strings.Contains(err.Error(), "damaged") {
				t.Errorf("%v, want damage", err)
			}
			return
		}
		if facts.FormatVersion > factsVersion {
			t.Errorf("format %d is read", facts.FormatVersion)
		}
		if err := WriteFacts(dir, facts); err != nil {
			t.Fatal(err)
		}
		again, err := ReadFacts(dir)
		again.FormatVersion = facts.FormatVersion
		if err != nil || !again.Mounted.Equal(facts.Mounted) {
			t.Fatalf("%+v was read as %+v, %v", facts, again, err)
		}
		if again.Mounted = facts.Mounted; again != facts {
			t.Errorf("%+v was read as %+v", facts, again)
		}
	})
}

// FuzzParseMountOptions: options travel between processes as they are, and those that can't be right are refused in words.
func FuzzParseMountOptions(f *testing.F) {
	for _, o := range []MountOptions{
		{Backing: "/srv/a b\"c", Mount: "/mnt/ü", State: "/var/x", Cache: CacheThrough, SnapDir: ".snap", AllowSuid: true, SnapshotTimeout: time.Minute, MaxConcurrent: 7, LogLevel: -4},
		{SnapDir: "..", SnapshotTimeout: -1, HangTimeout: 1, SettleAfter: -1, MaxConcurrent: -1},
		{SnapDir: strings.Repeat("n", 256), Cache: "none"},
	} {
		f.Add(o.String())
	}
	f.Add("")
	f.Add(`{"snapdir":"a/b","max_concurrent":1e9}`)
	f.Fuzz(func(t *testing.T, text string) {
		o, err := ParseMountOptions(text)
		if err != nil {
			return
		}
		if again, err := ParseMountOptions(o.String()); err != nil || !reflect.DeepEqual(again, o) {
			t.Errorf("%+v came as %+v, %v", o, again, err)
		}
		if o.CheckFlags() == nil && (strings.ContainsAny(o.SnapDir, "/\x00") || o.SnapDir == ".." || o.SnapshotTimeout < 0 || o.MaxConcurrent < 1) {
			t.Errorf("%+v is accepted", o)
		}
	})
}

// FuzzDecodeProgram: a program that may be anything says what it is, and is accepted only if it reads all formats that there are.
func FuzzDecodeProgram(f *testing.F) {
	whole, err := json.Marshal(Program{Version: "1.2.3", Go: "go1.30", Formats: Formats()})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(whole), `{"version":"1"}`, `{"version":""}`, "", "usage: true [FLAG]", `{"version":"9","formats":null}`, `{"version":"9","formats":{"pack":-1}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, out []byte) {
		p, ok := decodeProgram(out)
		if !ok {
			return
		}
		reads := true
		for name, have := range Formats() {
			reads = reads && p.Formats[name] >= have
		}
		c := candidate{Program: p}
		if err := c.checkFormats(); p.Version == "" || (err == nil) != reads {
			t.Errorf("%+v: %v", p, err)
		}
	})
}
