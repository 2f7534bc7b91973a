package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"graphvol/fs"
)

// Cache modes of a mount.
const (
	CacheWriteback = string(fs.WriteBack)
	CacheThrough   = string(fs.WriteThrough)
)

// Defaults of MountOptions.
const (
	DefaultSnapDir         = ".snapshots"
	DefaultSnapshotTimeout = 300 * time.Second
	DefaultMaxConcurrent   = 2
	DefaultHangTimeout     = 30 * time.Second
	leastHangTimeout       = time.Second
	DefaultScrubEvery      = 30 * 24 * time.Hour
	DefaultScrubLimit      = 20 << 20  // bytes a second
	leastRate              = 256 << 10 // bytes a second
	// DefaultSettleAfter is a little more than the kernel's own writeback takes: dirty_expire_centisecs and dirty_writeback_centisecs are 30 s and 5 s.
	DefaultSettleAfter = 40 * time.Second
)

// MountOptions say what to mount and how. They travel as JSON from the mounting command to the holder and from there to
// every server.
type MountOptions struct {
	Backing    string `json:"backing"`
	Mount      string `json:"mount"`
	State      string `json:"state,omitempty"` // empty: DefaultState(Backing)
	Cache      string `json:"cache,omitempty"` // empty: CacheWriteback
	SnapDir    string `json:"snapdir,omitempty"`
	AllowSuid  bool   `json:"allow_suid,omitempty"`
	AllowDev   bool   `json:"allow_dev,omitempty"`
	AllowOther bool   `json:"allow_other,omitempty"`
	NoExec     bool   `json:"no_exec,omitempty"`

	// SnapshotTimeout bounds the time from the call to the barrier, and how long a seal may make no progress.
	SnapshotTimeout time.Duration `json:"snapshot_timeout,omitempty"`
	// MaxConcurrent is how many snapshots may be unsealed at once; further ones wait before their barrier.
	MaxConcurrent int        `json:"max_concurrent,omitempty"`
	LogLevel      slog.Level `json:"log_level,omitempty"`
	// HangTimeout is how long a server may give no sign of life before the holder replaces it; 0: for ever.
	HangTimeout time.Duration `json:"hang_timeout,omitempty"`
	// SettleAfter is how long after a snapshot is stored the backing's filesystem is synced; 0: at once. A power cut before that makes the next
	// snapshot read again what this one had stored.
	SettleAfter time.Duration `json:"settle_after,omitempty"`
	// Copies are those of the store elsewhere; none: those that earlier mounts have named.
	Copies []CopyOptions `json:"copies,omitempty"`
	// UploadLimit is how many bytes a second are sent to the copies, all together; 0: any number.
	UploadLimit int64 `json:"upload_limit,omitempty"`
	// ScrubEvery is how long after a copy was read whole it is read again; 0: never.
	ScrubEvery time.Duration `json:"scrub_every,omitempty"`
	// ScrubLimit is how many bytes a second are read for that; 0: any number.
	ScrubLimit int64 `json:"scrub_limit,omitempty"`
}

func (o *MountOptions) setDefaults() {
	if o.State == "" {
		o.State = DefaultState(o.Backing)
		// Beside the directory itself, whether it was named by a symbolic link, as "." or with a slash at the end.
		if real, err := Canonical(o.Backing); err == nil {
			o.State = DefaultState(real)
		}
	}
	if o.Cache == "" {
		o.Cache = CacheWriteback
	}
	o.Copies = slices.DeleteFunc(o.Copies, func(c CopyOptions) bool { return len(c.Targets) == 0 }) // flags that name none
	if o.SnapDir == "" {
		o.SnapDir = DefaultSnapDir
	}
	if o.SnapshotTimeout == 0 {
		o.SnapshotTimeout = DefaultSnapshotTimeout
	}
	if o.MaxConcurrent == 0 {
		o.MaxConcurrent = DefaultMaxConcurrent
	}
}

// String is the form in which options travel.
func (o MountOptions) String() string {
	b, err := json.Marshal(o)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// ParseMountOptions reads what String made.
func ParseMountOptions(s string) (MountOptions, error) {
	var o MountOptions
	if err := json.Unmarshal([]byte(s), &o); err != nil {
		return o, fmt.Errorf("read mount options: %w", err)
	}
	o.setDefaults()
	return o, nil
}

// CheckFlags says whether the options that are no paths can be right; its errors are of usage.
func (o *MountOptions) CheckFlags() error {
	switch {
	case o.Cache != "" && !fs.Cache(o.Cache).Known():
		return refuse(codes.InvalidArgument, fmt.Sprintf("there is no cache mode %q: choose %s or %s", o.Cache, CacheWriteback, CacheThrough))
	case o.SnapDir == "." || o.SnapDir == ".." || strings.ContainsAny(o.SnapDir, "/\x00") || len(o.SnapDir) > 255:
		return refuse(codes.InvalidArgument, fmt.Sprintf("%q can't be the name of the snapshots' directory: give --snapdir a plain file name", o.SnapDir))
	case o.SnapshotTimeout < 0:
		return refuse(codes.InvalidArgument, "the snapshot timeout must be longer than nothing")
	case o.HangTimeout < 0, o.HangTimeout > 0 && o.HangTimeout < leastHangTimeout:
		return refuse(codes.InvalidArgument, fmt.Sprintf("%s is too short a time to call a server hung: give --hang-timeout %s or more, or 0 to leave hung servers alone", o.HangTimeout, leastHangTimeout))
	case o.SettleAfter < 0:
		return refuse(codes.InvalidArgument, "--settle-after can't be negative; 0 syncs the backing as soon as a snapshot is stored")
	case o.ScrubEvery < 0:
		return refuse(codes.InvalidArgument, "--scrub-every can't be negative; 0 leaves the copies to graphvol scrub")
	case o.ScrubLimit < 0, o.ScrubLimit > 0 && o.ScrubLimit < leastRate:
		return refuse(codes.InvalidArgument, "a scrub that reads less than 256KiB/s would never end: give --scrub-limit more, or 0 for no limit")
	case o.UploadLimit < 0, o.UploadLimit > 0 && o.UploadLimit < leastRate:
		return refuse(codes.InvalidArgument, "at less than 256KiB/s a copy would never be up to date: give --upload-limit more, or 0 for no limit")
	case checkCopies(o.Copies) != nil:
		return checkCopies(o.Copies)
	case o.MaxConcurrent < 0:
		return refuse(codes.InvalidArgument, "at least 1 snapshot must be allowed to be stored at a time")
	}
	return nil
}

// check makes the paths canonical, and refuses what can't work before anything is changed.
func (o *MountOptions) check() error {
	if err := o.CheckFlags(); err != nil {
		return err
	}
	o.setDefaults()
	var err error
	if o.Backing, err = checkDir("the backing directory", o.Backing); err != nil {
		return err
	}
	if o.Mount, err = checkDir("the mount point", o.Mount); err != nil {
		return err
	}
	if o.State, err = Canonical(o.State); err != nil {
		return cannotUseState(o.State, err)
	}
	return o.checkPlaces()
}

// checkPlaces refuses directories that lie in one another.
func (o *MountOptions) checkPlaces() error {
	over := sameDir(o.Backing, o.Mount)
	switch {
	case o.Backing == "/":
		return refuse(codes.InvalidArgument, "the root of the system can't be a backing directory: name the database's own directory")
	case inside(o.State, o.Backing):
		return refuse(codes.InvalidArgument, fmt.Sprintf("the state directory %s lies inside the backing directory %s and would become part of every snapshot: choose another with --state", o.State, o.Backing))
	case inside(o.State, o.Mount):
		return refuse(codes.InvalidArgument, fmt.Sprintf("the state directory %s lies inside the mount point %s, which hides it: choose another with --state", o.State, o.Mount))
	case inside(o.Backing, o.State):
		return refuse(codes.InvalidArgument, fmt.Sprintf("the backing directory %s lies inside the state directory %s: choose another with --state", o.Backing, o.State))
	case !over && inside(o.Backing, o.Mount):
		return refuse(codes.InvalidArgument, fmt.Sprintf("the backing directory %s lies inside the mount point %s, which hides it: choose another mount point, or mount it over itself", o.Backing, o.Mount))
	case !over && inside(o.Mount, o.Backing):
		return refuse(codes.InvalidArgument, fmt.Sprintf("the mount point %s lies inside the backing directory %s: choose one outside of it, or mount it over itself", o.Mount, o.Backing))
	case IsState(o.Backing):
		return refuse(codes.InvalidArgument, fmt.Sprintf("%s is the state directory of a volume, not a database's directory", o.Backing))
	}
	return nil
}

func checkDir(what, path string) (string, error) {
	real, err := Canonical(path)
	if err == nil {
		var st os.FileInfo
		if st, err = os.Stat(real); err == nil && !st.IsDir() {
			err = unix.ENOTDIR
		}
	}
	switch {
	case err == nil:
		return real, nil
	case errors.Is(err, os.ErrNotExist):
		return "", refuse(codes.NotFound, fmt.Sprintf("%s %s does not exist: check the path, or make it with mkdir -p", what, path))
	case errors.Is(err, unix.ENOTDIR):
		return "", refuse(codes.InvalidArgument, fmt.Sprintf("%s %s is not a directory", what, path))
	case errors.Is(err, os.ErrPermission):
		return "", refuse(codes.PermissionDenied, fmt.Sprintf("%s %s may not be read by this user: run as its owner or as root", what, path))
	case errors.Is(err, unix.ENOTCONN):
		return "", refuse(codes.FailedPrecondition, fmt.Sprintf("%s %s lies on a mount whose server is dead: unmount that first (umount -l)", what, path))
	}
	return "", fmt.Errorf("%s %s: %w", what, path, err)
}

// makeState makes the state directory, readable by its owner only, and tries whether it can be written.
func (o *MountOptions) makeState() error {
	err := os.MkdirAll(o.State, 0o700)
	if err == nil {
		err = os.Chmod(o.State, 0o700)
	}
	if err == nil {
		err = os.MkdirAll(filepath.Join(o.State, "log"), 0o700)
	}
	var probe *os.File
	if err == nil {
		probe, err = os.CreateTemp(o.State, ".probe")
	}
	if err == nil {
		err = errors.Join(probe.Close(), os.Remove(probe.Name()))
	}
	if errors.Is(err, unix.ENOSPC) && IsState(o.State) {
		return nil // the volume works on a full disk, and tells of it when snapshots fail
	}
	return cannotUseState(o.State, err)
}

func cannotUseState(state string, err error) error {
	why := ""
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EROFS):
		why = "is on a read-only disk"
	case errors.Is(err, os.ErrPermission):
		why = "may not be written by this user"
	case errors.Is(err, unix.ENOSPC):
		why = "is on a full disk"
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, os.ErrExist):
		why = "is not a directory"
	default:
		return fmt.Errorf("the state directory %s can't be used: %w", state, err)
	}
	return &Error{codes.FailedPrecondition, fmt.Sprintf("the state directory %s %s: choose another with --state", state, why), err}
}
