package cluster

import (
	"errors"
	"io"
	"testing"
)

func TestJoin(t *testing.T) {
	if err := OneLine(nil, nil); err != nil {
		t.Error(err)
	}
	err := OneLine(nil, &NodeError{"a", io.EOF}, ErrNotFound)
	if !errors.Is(err, ErrNotFound) || !errors.Is(err, io.EOF) || err.Error() != "node a: EOF; "+ErrNotFound.Error() {
		t.Errorf("%v", err)
	}
}
