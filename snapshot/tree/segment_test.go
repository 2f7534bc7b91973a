package tree

import (
	"testing"

	"graphvol/chunkstore"
)

func TestPlaced(t *testing.T) {
	a, b := chunkstore.Sum([]byte("a")), chunkstore.Sum([]byte("b"))
	tests := []struct {
		what    string
		extents []Extent
		id      chunkstore.ID
		end     int
	}{
		{"no data", nil, chunkstore.ID{}, 0},
		{"one chunk", []Extent{{0, 32, 0, a}}, a, 32},
		{"overwritten in the middle", []Extent{{0, 4, 0, a}, {4, 1, 0, b}, {5, 20, 5, a}}, a, 25},
		{"most is placed", []Extent{{0, 2, 0, a}, {2, 30, 2, b}}, b, 32},
		{"moved", []Extent{{1, 31, 0, a}}, chunkstore.ID{}, 0},
		{"partly moved", []Extent{{0, 8, 0, a}, {9, 8, 8, a}, {20, 1, 20, b}}, b, 21},
	}
	for _, tc := range tests {
		s := Segment{Extents: tc.extents}
		if id, end := s.Placed(); id != tc.id || end != tc.end {
			t.Errorf("%s: %v up to block %d, want %v up to %d", tc.what, id, end, tc.id, tc.end)
		}
	}
}
