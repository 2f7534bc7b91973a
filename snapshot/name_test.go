package snapshot

import (
	"errors"
	"strings"
	"testing"
	"time"

	"graphvol/index"
)

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "2026-11-25T01-56-21Z", "before the import", "Größe", ".hidden", strings.Repeat("x", 255)} {
		if err := CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "latest", "a/b", "a\nb", "\x00", "\xff", "-x", strings.Repeat("x", 256)} {
		if err := CheckName(name); !errors.Is(err, ErrBadName) {
			t.Errorf("%q: %v, want ErrBadName", name, err)
		}
	}
}

func catalogue() []index.Snapshot {
	return []index.Snapshot{
		{ID: "01aaa", Name: "monday", State: index.StateComplete},
		{ID: "01aab", Name: "tuesday", State: index.StateComplete},
		{ID: "01aac", Name: "tuesday-evening", State: index.StateComplete},
		{ID: "01aad", Name: "wednesday", State: index.StateFailed},
		{ID: "01aae", Name: "wednesday", State: index.StateComplete},
		{ID: "01aaf", Name: "thursday", State: index.StatePending},
	}
}

func TestResolve(t *testing.T) {
	for ref, id := range map[string]string{
		"monday": "01aaa", "mon": "01aaa", "01aab": "01aab", "tuesday": "01aab", "tuesday-": "01aac", "wednesday": "01aae",
		"01aad": "01aad", "latest": "01aae", "thursday": "01aaf", "w": "01aae",
	} {
		if s, err := resolve(catalogue(), ref); err != nil || s.ID != id {
			t.Errorf("%q gives %s, want %s: %v", ref, s.ID, id, err)
		}
	}
	for ref, says := range map[string]string{
		"mondy": "did you mean monday?", "tues": "tuesday, tuesday-evening", "friday": "lists them", "01": "can mean", "": "empty",
		"quite another": "lists them",
	} {
		if _, err := resolve(catalogue(), ref); !errors.Is(err, ErrNoSnapshot) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want it to say %q", ref, err, says)
		}
	}
	if _, err := resolve(nil, "latest"); !errors.Is(err, ErrNoSnapshot) {
		t.Error(err)
	}
}

func TestBeginNames(t *testing.T) {
	r := newRepo(t)
	taken := map[string]bool{}
	for range 3 {
		s, err := r.Begin("", BeginOptions{})
		if err != nil || taken[s.Name] || CheckName(s.Name) != nil {
			t.Fatalf("default name %q: %v", s.Name, err)
		}
		taken[s.Name] = true
	}
	if _, err := r.Begin("one", BeginOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Begin("one", BeginOptions{}); !errors.Is(err, index.ErrExists) {
		t.Errorf("a taken name: %v", err)
	}
	if _, err := r.Begin("a/b", BeginOptions{}); !errors.Is(err, ErrBadName) {
		t.Errorf("a bad name: %v", err)
	}
	at := time.Date(2026, 11, 25, 2, 56, 21, 0, time.FixedZone("", 3600))
	if n := DefaultName(at, 1); n != "2026-11-25T01-56-21Z" {
		t.Error(n)
	}
	if n := DefaultName(at, 2); n != "2026-11-25T01-56-21Z-2" {
		t.Error(n)
	}
}
