package dial

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"graphvol/chunkstore/target"
	"graphvol/chunkstore/target/s3"
	"graphvol/chunkstore/target/s3/s3test"
)

func TestParse(t *testing.T) {
	for raw, want := range map[string]location{
		"dir:/mnt/backup":           {dir: "/mnt/backup"},
		"dir:///mnt//backup/./vol/": {dir: "/mnt/backup/vol"},
		"dir:/with space/%41":       {dir: "/with space/%41"},
		"s3://bucket":               {s3: &s3.Config{Bucket: "bucket"}},
		"s3://bucket/":              {s3: &s3.Config{Bucket: "bucket"}},
		"s3://buck.et/a/b/":         {s3: &s3.Config{Bucket: "buck.et", Prefix: "a/b"}},
		"s3://bucket/p?endpoint=s3.example.com:9000&region=eu&profile=backup&style=path&insecure=0": {
			s3: &s3.Config{Bucket: "bucket", Prefix: "p", Endpoint: "s3.example.com:9000", Region: "eu", Profile: "backup", Style: "path"},
		},
		"s3://bucket/p?endpoint=http%3A%2F%2Fa%3A1&insecure=1": {s3: &s3.Config{Bucket: "bucket", Prefix: "p", Endpoint: "http://a:1", Insecure: true}},
		"s3://bucket/p?endpoint=http://a:1&insecure=1":         {s3: &s3.Config{Bucket: "bucket", Prefix: "p", Endpoint: "http://a:1", Insecure: true}},
	} {
		got, err := parse(raw)
		if err != nil || got.dir != want.dir || (got.s3 == nil) != (want.s3 == nil) || got.s3 != nil && *got.s3 != *want.s3 {
			t.Errorf("%s: %+v %+v, %v, want %+v", raw, got, got.s3, err, want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for raw, want := range map[string]string{
		"":                                 "dir:/path",
		"/mnt/backup":                      "dir:/path",
		"backup":                           "s3://bucket/prefix",
		"ftp://host/x":                     `"ftp:": there are dir:/path and s3://`,
		"S3://bucket":                      "there are dir:/path and s3://",
		"dir:":                             "absolute",
		"dir:backup":                       "absolute",
		"dir:./backup":                     "absolute",
		"dir:/":                            "of its own",
		"dir:/..":                          "of its own",
		"dir:/a?insecure=1":                "no options",
		"dir:/a\x00":                       "characters",
		"s3:":                              "no bucket",
		"s3:bucket/x":                      "no bucket",
		"s3:///x":                          "no bucket",
		"s3://bucket:80/x":                 "can't be read",
		"s3://AKIA:topsecret/bucket":       "can't be read",
		"s3://Bucket/x":                    "ucket name",
		"s3://b/x":                         "ucket name",
		"s3://bucket/../x":                 "prefix",
		"s3://bucket/a//b":                 "prefix",
		"s3://bucket/a b":                  "prefix",
		"s3://bucket/x#y":                  "after #",
		"s3://bucket/x?color=red":          `no option "color": there are endpoint, insecure, profile, region, style`,
		"s3://bucket/x?Region=eu":          "no option",
		"s3://bucket/x?region=a&region=b":  "twice",
		"s3://bucket/x?insecure=yes":       "1 or 0",
		"s3://bucket/x?a=1;b=2":            "&",
		"s3://bucket/x?endpoint=http://a":  "in the clear",
		"s3://bucket/x?endpoint=a/b":       "host:port",
		"s3://bucket/x?style=new":          "path and host",
		"s3://AKIA:topsecret@bucket/x":     "credentials don't belong",
		"s3://AKIA:topsecret@bucket:x/%zz": "can't be read",
		"s3://bucket/x?endpoint=http://AKIA:topsecret@host&insecure=1": "credentials don't belong",
	} {
		_, err := parse(raw)
		if err == nil || !strings.Contains(err.Error(), want) || strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("%q: %q, want %q", raw, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "topsecret") {
			t.Errorf("%q: the error repeats the secret: %v", raw, err)
		}
		if Check(raw) == nil {
			t.Errorf("Check accepts %q", raw)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"dir:/a/b", "dir:a", "dir:\n", "s3://bucket/prefix?endpoint=h:1&region=r&profile=p&insecure=1", "s3://k:s@bucket", "s3://bucket/%2e%2e/x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		loc, err := parse(raw)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
			return
		}
		if c := loc.s3; c != nil {
			if loc.dir != "" || c.Bucket == "" || c.Prefix != "" && target.CheckName(c.Prefix) != nil || c.Check() != nil {
				t.Errorf("%q: %+v", raw, c)
			}
			return
		}
		if !filepath.IsAbs(loc.dir) || filepath.Clean(loc.dir) != loc.dir || loc.dir == "/" {
			t.Errorf("%q: %q", raw, loc.dir)
		}
	})
}

func TestOpenDir(t *testing.T) {
	dir := t.TempDir()
	tg, err := Open(t.Context(), "dir:"+dir+"/vol")
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Put(t.Context(), tg, "a", []byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := tg.Open(t.Context(), "b"); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, target.ErrUnavailable) {
		t.Errorf("an object that isn't there: %v", err)
	}
	if list, err := tg.List(t.Context(), "packs/"); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	if err := os.Rename(dir+"/vol", dir+"/away"); err != nil {
		t.Fatal(err)
	}
	_, err = tg.Open(t.Context(), "a")
	_, lerr := tg.List(t.Context(), "")
	for _, err := range []error{err, lerr} {
		if !errors.Is(err, target.ErrUnavailable) || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "mount its disk") {
			t.Errorf("a disk that was taken away: %v", err)
		}
	}
	_, err = Open(t.Context(), "dir:"+dir+"/unmounted/vol")
	if !errors.Is(err, target.ErrUnavailable) || !strings.Contains(err.Error(), "mount its disk") {
		t.Errorf("without a parent: %v", err)
	}
	if _, err := os.Stat(dir + "/unmounted"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the parent was created: %v", err)
	}
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), "dir:"+dir+"/file/vol"); err == nil || errors.Is(err, target.ErrUnavailable) {
		t.Errorf("below a file: %v", err)
	}
	if _, err := Open(t.Context(), "dir:"+dir+"/file"); err == nil {
		t.Error("a file was opened")
	}
}

func TestOpenS3(t *testing.T) {
	srv := s3test.Start(t)
	tg, err := Open(t.Context(), srv.URL("some/where"))
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Put(t.Context(), tg, "a", []byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(srv.File("some/where/a")); err != nil {
		t.Error(err)
	}
	if tg, err := Open(t.Context(), strings.Replace(srv.URL("x"), s3test.Bucket, "another", 1)); !errors.Is(err, target.ErrDenied) || tg != nil {
		t.Errorf("no bucket: %v, %v", tg, err)
	}
}
