package agent

import (
	"log/slog"
	"path/filepath"
	"testing"

	"graphvol/chunkstore/limit"
	"graphvol/chunkstore/target"
)

// TestUploadLimit: what is sent to any target of a volume's copies counts against one limit, and what is read doesn't.
func TestUploadLimit(t *testing.T) {
	r := &remotes{state: t.TempDir(), log: slog.New(slog.DiscardHandler), upload: limit.NewLimiter(1 << 30)}
	for i := range 2 {
		tg, err := r.opener().Dial(t.Context(), "dir:"+filepath.Join(t.TempDir(), "copy"))
		if err != nil {
			t.Fatal(err)
		}
		if err := target.Put(t.Context(), tg, "packs/aa/x.pack", make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		if _, err := target.Get(t.Context(), tg, "packs/aa/x.pack", 1000); err != nil {
			t.Fatal(err)
		}
		if got, want := r.upload.Given(), int64(1000*(i+1)); got != want {
			t.Errorf("%d bytes count as sent, want %d", got, want)
		}
	}
}
