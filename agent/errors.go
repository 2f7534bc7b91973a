package agent

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent/traceid"
	"graphvol/chunkstore"
	"graphvol/chunkstore/crypt"
	"graphvol/chunkstore/target"
	"graphvol/fs/cow"
	"graphvol/index"
	"graphvol/remote"
	"graphvol/snapshot"
)

// Error is an error whose text is made for the user: what happened, to what, and what to do. Everything else that
// leaves the agent is either translated into one, or hidden behind a reference to the log.
type Error struct {
	Code    codes.Code
	Message string
	Err     error // cause, for the log; may be nil
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// GRPCStatus is how the error leaves the agent.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Message) }

// Message gives the one line that a person should read of an error of this package or of a call of the service.
func Message(err error) string {
	text := err.Error()
	var own *Error
	if errors.As(err, &own) {
		text = own.Message
	} else if st, ok := status.FromError(err); ok {
		text = st.Message()
		if st.Code() == codes.Canceled && text == context.Canceled.Error() {
			text = "interrupted"
		}
	} else if errors.Is(err, context.Canceled) {
		text = "interrupted"
	}
	return strings.Join(strings.Fields(text), " ")
}

// translation says how errors of the lower packages are shown. text may be empty: the error's own words are for people.
type translation struct {
	is   error
	code codes.Code
	text string
}

// translations is ordered: the first that matches counts.
func translations() []translation {
	return []translation{
		{snapshot.ErrNoSnapshot, codes.NotFound, ""},
		{snapshot.ErrBadName, codes.InvalidArgument, ""},
		{snapshot.ErrBadTag, codes.InvalidArgument, ""},
		{snapshot.ErrNotComplete, codes.FailedPrecondition, ""},
		{snapshot.ErrNewerFormat, codes.FailedPrecondition, ""},
		{snapshot.ErrHeld, codes.FailedPrecondition, ""},
		{snapshot.ErrPending, codes.FailedPrecondition, ""},
		{snapshot.ErrPruning, codes.Aborted, ""},
		{snapshot.ErrTooManyNames, codes.FailedPrecondition, ""},
		{snapshot.ErrBadManifest, codes.DataLoss, ""},
		{index.ErrExists, codes.AlreadyExists, ""},
		{index.ErrInUse, codes.Aborted, ""},
		{snapshot.ErrIndexLost, codes.DataLoss, ""},
		{index.ErrNewerFormat, codes.FailedPrecondition, ""},
		{chunkstore.ErrNewerFormat, codes.FailedPrecondition, ""},
		{ErrNewerFormat, codes.FailedPrecondition, ""},
		{ErrNoVolume, codes.FailedPrecondition, ""},
		{remote.ErrLocked, codes.FailedPrecondition, ""},
		{crypt.ErrNewerFormat, codes.FailedPrecondition, ""},
		{crypt.ErrAltered, codes.DataLoss, ""},
		{crypt.ErrForeignKeyring, codes.DataLoss, ""},
		{crypt.ErrNoKey, codes.PermissionDenied, ""},
		{crypt.ErrKeyFile, codes.FailedPrecondition, ""},
		{remote.ErrTaken, codes.FailedPrecondition, ""},
		{remote.ErrForeign, codes.FailedPrecondition, ""},
		{remote.ErrChanged, codes.DataLoss, ""},
		{remote.ErrNewerFormat, codes.FailedPrecondition, ""},
		{target.ErrDenied, codes.PermissionDenied, ""},
		{target.ErrUnavailable, codes.Aborted, ""},
		{cow.ErrBarrierTimeout, codes.DeadlineExceeded, "requests in flight did not end in time, so no snapshot was taken and the volume works on: the disk below the backing is slow or hangs; try again when it is well"},
		{cow.ErrPreimage, codes.ResourceExhausted, ""},
		{cow.ErrClosed, codes.Aborted, "the volume is being unmounted"},
		{index.ErrCorrupt, codes.DataLoss, "index.db is damaged: unmount the volume, then run graphvol rebuild; the log has the details"},
		{chunkstore.ErrCorrupt, codes.DataLoss, ""},
		{context.Canceled, codes.Canceled, "interrupted"},
		{context.DeadlineExceeded, codes.DeadlineExceeded, "it took too long and was given up; see the log for what was slow"},
		{unix.ENOSPC, codes.ResourceExhausted, "no space left on the disk; free some (graphvol delete and graphvol prune give space of old snapshots back) and try again"},
		{unix.EDQUOT, codes.ResourceExhausted, "the disk quota is used up; free some space or raise it, and try again"},
		{unix.EROFS, codes.FailedPrecondition, "the disk is read-only; mount it writable and try again"},
		{unix.EIO, codes.DataLoss, ""},
		{unix.E2BIG, codes.FailedPrecondition, ""},
		{fs.ErrNotExist, codes.NotFound, ""},
		{fs.ErrPermission, codes.PermissionDenied, ""},
	}
}

// statusOf makes an error fit to leave the agent. what says what was being done, in the words of a sentence's subject:
// "the snapshot". Unknown errors are logged in full and told as a reference to the log.
func statusOf(ctx context.Context, log *slog.Logger, what string, err error) error {
	if err == nil {
		return nil
	}
	var own *Error
	if errors.As(err, &own) {
		log.InfoContext(ctx, what+" was refused", "err", err, "cause", own.Err)
		return own
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	var failed *snapshot.RestoreError
	if errors.As(err, &failed) && !errors.Is(err, chunkstore.ErrCorrupt) {
		log.WarnContext(ctx, what+" failed", "err", err)
		return status.Error(codes.FailedPrecondition, what+" failed: "+err.Error()) // it tells the paths, whatever the errors are
	}
	for _, t := range translations() {
		if !errors.Is(err, t.is) {
			continue
		}
		log.WarnContext(ctx, what+" failed", "err", err, "code", t.code.String())
		text := t.text
		if text == "" {
			text = err.Error()
		}
		return status.Error(t.code, what+" failed: "+text)
	}
	log.ErrorContext(ctx, what+" failed", "err", err)
	return status.Errorf(codes.Internal, "%s failed: %s", what, lastCause(ctx, err))
}

// lastCause shortens an unknown error to what lies at its bottom: errno texts say something to an administrator, the
// chain above them speaks of internals.
func lastCause(ctx context.Context, err error) string {
	text := "an internal error"
	var errno unix.Errno
	if errors.As(err, &errno) {
		text = errno.Error()
	}
	text += "; the agent's log (STATE/log/agent.log) has the details"
	if trace := traceid.Of(ctx); trace != "" {
		text += ", with trace_id " + trace
	}
	return text
}

func refuse(code codes.Code, message string) *Error { return &Error{Code: code, Message: message} }
