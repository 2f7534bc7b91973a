package mountinfo

import (
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const text = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
36 22 0:53 / /srv/my\040graph\134x rw,nosuid,nodev shared:12 master:3 - fuse.graphvol /var/lib/a\011b rw,user_id=0,allow_other
37 22 0:54 /sub /mnt rw - tmpfs none
`
	got, err := parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []Mount{
		{ID: 22, Parent: 1, Major: 8, Minor: 1, Root: "/", Point: "/", Options: "rw,relatime", FSType: "ext4", Source: "/dev/sda1", SuperOptions: "rw"},
		{ID: 36, Parent: 22, Minor: 53, Root: "/", Point: `/srv/my graph\x`, Options: "rw,nosuid,nodev", FSType: "fuse.graphvol", Source: "/var/lib/a\tb", SuperOptions: "rw,user_id=0,allow_other"},
		{ID: 37, Parent: 22, Minor: 54, Root: "/sub", Point: "/mnt", Options: "rw", FSType: "tmpfs", Source: "none"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	for _, bad := range []string{"x", "1 2 3 / / rw - a b", "1 2 0:x / / rw - a b", "1 2 0:3 / - a b", "1 2 0:3 / / rw - a"} {
		if _, err := parse(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add(`36 22 0:53 / /srv/my\040graph\134x rw shared:12 - fuse.graphvol a\011b rw`)
	f.Fuzz(func(t *testing.T, line string) {
		if m, err := parseLine(line); err == nil && len(m.Point) > len(line) {
			t.Errorf("%q grew to %q", line, m.Point)
		}
	})
}
