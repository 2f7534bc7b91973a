package erasure_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"graphvol/chunkstore/erasure"
	"graphvol/chunkstore/target"
	"graphvol/chunkstore/target/targettest"
)

func TestConformance(t *testing.T) {
	for _, c := range []struct {
		layout string
		n      int
	}{{"1+0", 1}, {"1+2", 3}, {"2+1", 4}, {"3+0", 3}, {"4+2", 6}, {"4+2", 9}} {
		t.Run(fmt.Sprintf("%s over %d", c.layout, c.n), func(t *testing.T) {
			targettest.Run(t, func(t *testing.T) target.Target {
				l, err := erasure.ParseLayout(c.layout)
				if err != nil {
					t.Fatal(err)
				}
				var members []erasure.Member
				for i := range c.n {
					d, err := target.OpenDir(filepath.Join(t.TempDir(), fmt.Sprint(i)))
					if err != nil {
						t.Fatal(err)
					}
					members = append(members, erasure.Member{ID: fmt.Sprint(i), Target: d})
				}
				tg, err := erasure.New(l, members, erasure.Options{})
				if err != nil {
					t.Fatal(err)
				}
				return tg
			})
		})
	}
}
