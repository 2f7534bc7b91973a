package agent

import (
	"errors"

	"google.golang.org/grpc/codes"

	"graphvol/internal/fusedev"
)

// checkFuse says beforehand what a mount would fail of.
func checkFuse() error {
	err := fusedev.Check(fusedev.Path)
	var known *fusedev.Error
	if errors.As(err, &known) {
		return &Error{codes.FailedPrecondition, known.Problem, known.Err}
	}
	return err
}
