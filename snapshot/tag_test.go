package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestCheckTag(t *testing.T) {
	for _, tag := range []string{"a", "release-1.2", "Größe", "k=v", strings.Repeat("x", maxTag)} {
		if err := CheckTag(tag); err != nil {
			t.Errorf("%q: %v", tag, err)
		}
	}
	for _, tag := range []string{"", "a,b", "a b", "a\nb", "\x00", "\xff", "-x", strings.Repeat("x", maxTag+1)} {
		if err := CheckTag(tag); !errors.Is(err, ErrBadTag) {
			t.Errorf("%q: %v, want ErrBadTag", tag, err)
		}
	}
	many := make([]string, maxTags+1)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	if _, err := sortTags(many); !errors.Is(err, ErrBadTag) {
		t.Errorf("%d tags: %v", len(many), err)
	}
}

// TestTagsInManifest: tags are stored in one order, so a manifest with them in another was edited.
func TestTagsInManifest(t *testing.T) {
	m := sampleManifest()
	var err error
	if m.Tags, err = sortTags([]string{"release", "audit", "release"}); err != nil || !slices.Equal(m.Tags, []string{"audit", "release"}) {
		t.Fatalf("%q, %v", m.Tags, err)
	}
	p, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if back, err := ReadManifest(p); err != nil || !slices.Equal(back.Tags, m.Tags) {
		t.Errorf("read back %q, %v", back.Tags, err)
	}
	for _, bad := range []string{"zoo", "release", "a,b"} {
		if _, err := ReadManifest(bytes.Replace(p, []byte(`"audit"`), fmt.Appendf(nil, "%q", bad), 1)); !errors.Is(err, ErrBadManifest) {
			t.Errorf("with %q first: %v", bad, err)
		}
	}
}
