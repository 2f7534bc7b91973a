package pgtest

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServer(t *testing.T) {
	var dir string
	t.Run("runs", func(t *testing.T) {
		s := Start(t)
		dir = s.Dir
		s.Exec(t, "CREATE TABLE kept (a int); CREATE ROLE other LOGIN")
		s.Access(t, "local all other trust")
		s.Exec(t, "INSERT INTO kept VALUES (1)")
	})
	if dir == "" {
		t.Skip("there is none")
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left: %v", dir, err)
	}
}
