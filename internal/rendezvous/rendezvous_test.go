package rendezvous

import (
	"fmt"
	"slices"
	"testing"
)

// TestOrderIsFixed has orders that stores in use were written with (sha256sum of "a\0p" and so on).
func TestOrderIsFixed(t *testing.T) {
	ids := []string{"a", "b", "c", "d"}
	for key, want := range map[string][]int{"p": {0, 2, 3, 1}, "packs/1": {2, 0, 3, 1}, "": {1, 3, 2, 0}} {
		if got := Order(ids, key); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", key, got, want)
		}
	}
}

// TestOthersStayInOrder is what makes it consistent hashing.
func TestOthersStayInOrder(t *testing.T) {
	ids := []string{"a", "b", "c", "d", "e"}
	for i := range 200 {
		key := fmt.Sprint(i)
		all := Order(ids, key)
		fewer := Order(ids[:4], key)
		if rest := slices.DeleteFunc(all, func(p int) bool { return p == 4 }); !slices.Equal(rest, fewer) {
			t.Errorf("%s: %v with e, %v without", key, rest, fewer)
		}
	}
}
