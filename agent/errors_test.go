package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent/traceid"
	"graphvol/chunkstore"
	"graphvol/fs/cow"
	"graphvol/index"
	"graphvol/snapshot"
)

func TestErrorsLeaveTranslated(t *testing.T) {
	for _, c := range []struct {
		err  error
		code codes.Code
		want string // in the message
	}{
		{fmt.Errorf("resolve: %w: \"x\"; near: monday", snapshot.ErrNoSnapshot), codes.NotFound, "near: monday"},
		{fmt.Errorf("begin: %w", snapshot.ErrBadName), codes.InvalidArgument, "bad snapshot name"},
		{fmt.Errorf("read: %w", snapshot.ErrNotComplete), codes.FailedPrecondition, "not complete"},
		{fmt.Errorf("delete: %w", snapshot.ErrPending), codes.FailedPrecondition, "still being stored"},
		{snapshot.ErrPruning, codes.Aborted, "another prune"},
		{fmt.Errorf("begin: %w", index.ErrExists), codes.AlreadyExists, ""},
		{fmt.Errorf("open: %w", index.ErrInUse), codes.Aborted, ""},
		{fmt.Errorf("open: %w", index.ErrNewerFormat), codes.FailedPrecondition, ""},
		{cow.ErrBarrierTimeout, codes.DeadlineExceeded, "the volume works on"},
		{&chunkstore.CorruptError{Reason: "bad hash"}, codes.DataLoss, "bad hash"},
		{context.DeadlineExceeded, codes.DeadlineExceeded, "took too long"},
		{context.Canceled, codes.Canceled, "interrupted"},
		{&os.PathError{Op: "write", Path: "/x", Err: unix.ENOSPC}, codes.ResourceExhausted, "no space left"},
		{&os.PathError{Op: "write", Path: "/x", Err: unix.EROFS}, codes.FailedPrecondition, "read-only"},
		{fs.ErrPermission, codes.PermissionDenied, ""},
		{refuse(codes.Aborted, "for a reason"), codes.Aborted, "for a reason"},
		{fmt.Errorf("wrapped: %w", refuse(codes.Aborted, "for a reason")), codes.Aborted, "for a reason"},
		{status.Error(codes.NotFound, "as it is"), codes.NotFound, "as it is"},
		{&snapshot.RestoreError{Count: 1, Problems: []snapshot.RestoreProblem{{Path: "a/file", Err: unix.EFBIG}}}, codes.FailedPrecondition, "a/file: file too large"},
		{errors.New("nil map in frobnicator"), codes.Internal, "STATE/log/agent.log"},
	} {
		var log bytes.Buffer
		got := statusOf(t.Context(), slog.New(slog.NewTextHandler(&log, nil)), "the work", c.err)
		if status.Code(got) != c.code || !strings.Contains(Message(got), c.want) {
			t.Errorf("%v: %v (%v), want %v, %q", c.err, status.Code(got), got, c.code, c.want)
		}
		if strings.Contains(Message(got), "frobnicator") {
			t.Errorf("internals leave: %v", got)
		}
		if c.code == codes.Internal && !strings.Contains(log.String(), "frobnicator") {
			t.Errorf("not logged: %s", &log)
		}
	}
	ctx := traceid.New(t.Context())
	if got := Message(statusOf(ctx, quiet(), "the work", errors.New("nil map"))); !strings.HasSuffix(got, ", with trace_id "+traceid.Of(ctx)) {
		t.Errorf("whoever looks at the log isn't told for what: %s", got)
	}
	if statusOf(t.Context(), quiet(), "the work", nil) != nil {
		t.Error("an error of nothing")
	}
}

func TestMessageIsOneLine(t *testing.T) {
	for _, err := range []error{
		errors.New("a\nb\t c"), status.Error(codes.NotFound, "a\nb c"), refuse(codes.NotFound, "a b\n\nc"), errors.Join(errors.New("a b"), errors.New("c")),
	} {
		if got := Message(err); got != "a b c" {
			t.Errorf("%q", got)
		}
	}
	if got := Message(fmt.Errorf("x: %w", context.Canceled)); got != "interrupted" {
		t.Errorf("%q", got)
	}
}
