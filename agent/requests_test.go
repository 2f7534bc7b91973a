package agent

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent/api"
	"graphvol/snapshot/tree"
)

// smallSource is an ended epoch of a directory with a file.
type smallSource struct{ emptySource }

func (s *smallSource) Inode(_ context.Context, ino uint64) (tree.Inode, error) {
	switch ino {
	case 1, 2:
		return tree.Inode{Ino: ino, Mode: unix.S_IFDIR | 0o755, Nlink: 2}, nil
	case 3:
		return tree.Inode{Ino: ino, Mode: unix.S_IFREG | 0o644, Nlink: 1}, nil
	}
	return tree.Inode{}, fs.ErrNotExist
}

func (s *smallSource) Entries(_ context.Context, ino uint64) ([]tree.Dirent, error) {
	switch ino {
	case 1:
		return []tree.Dirent{{Name: "dir", Ino: 2, Type: unix.DT_DIR}}, nil
	case 2:
		return []tree.Dirent{{Name: "file", Ino: 3, Type: unix.DT_REG}}, nil
	}
	return nil, nil
}

// served is a service with one snapshot, all of whose files lie below base.
type served struct {
	*Client
	base string
}

func newServed(f *testing.F) served {
	f.Helper()
	s := served{base: f.TempDir()}
	s.Client = serveFake(f, &fakeLive{source: func(epoch uint64) ended { return &smallSource{emptySource{epoch: epoch}} }}, func(cfg *serviceConfig) {
		cfg.facts = Facts{Backing: filepath.Join(s.base, "backing"), Mount: filepath.Join(s.base, "mount"), SnapDir: ".snapshots"}
	})
	for _, dir := range []string{"backing", "mount"} {
		if err := os.Mkdir(filepath.Join(s.base, dir), 0o700); err != nil {
			f.Fatal(err)
		}
	}
	if _, _, err := take(f, s.Client, &api.SnapshotRequest{Name: "one"}); err != nil {
		f.Fatal(err)
	}
	return s
}

// files lists what lies below base.
func (s served) files(t *testing.T) string {
	t.Helper()
	var all []string
	if err := filepath.WalkDir(s.base, func(p string, _ fs.DirEntry, err error) error {
		all = append(all, strings.TrimPrefix(p, s.base))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

// told checks that an error says what is wrong with the request: it is the caller's, not the service's.
func told(t *testing.T, what string, err error) {
	t.Helper()
	switch status.Code(err) {
	case codes.OK, codes.NotFound, codes.InvalidArgument, codes.FailedPrecondition, codes.AlreadyExists:
	default:
		t.Errorf("%s: %v", what, err)
	}
	if err != nil && (Message(err) == "" || strings.Contains(Message(err), "\n")) {
		t.Errorf("%s: %q", what, Message(err))
	}
}

// last is how a stream ends.
func last[T any](s interface{ Recv() (T, error) }, err error) error {
	for err == nil {
		_, err = s.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// FuzzSnapshotNames: whatever name a snapshot is to get, or is asked for by, makes no file anywhere, and leaves the others alone.
func FuzzSnapshotNames(f *testing.F) {
	for _, seed := range []string{"one", "o", "latest", "", ".", "..", "../one", "/etc", "a/b", "a\x00b", "\xff", "two", "two words", "-x", "[inode 5]", "a\nb", strings.Repeat("n", 256), strings.Repeat("ü", 200)} {
		f.Add(seed)
	}
	s := newServed(f)
	f.Fuzz(func(t *testing.T, name string) {
		if !utf8.ValidString(name) {
			t.Skip("gRPC itself doesn't send it")
		}
		ctx, before := t.Context(), s.files(t)
		_, err := s.GetSnapshot(ctx, &api.GetSnapshotRequest{Snapshot: name})
		told(t, "get", err)
		diff, err := s.Diff(ctx, &api.DiffRequest{A: "one", B: name, Ranges: true})
		told(t, "diff", last(diff, err))
		verify, err := s.Verify(ctx, &api.VerifyRequest{Snapshots: []string{name}})
		told(t, "verify", last(verify, err))
		_, err = s.Delete(ctx, &api.DeleteRequest{Snapshots: []string{name, "there is none"}})
		if err == nil {
			t.Errorf("%q and one that isn't there are deleted", name)
		}
		told(t, "delete", err)
		_, snap, err := take(t, s.Client, &api.SnapshotRequest{Name: name})
		told(t, "snapshot", err)
		if err == nil {
			if name != "" && snap.GetName() != name || snap.GetName() == "" || strings.ContainsAny(snap.GetName(), "/\x00\n") {
				t.Errorf("the snapshot %q has the name %q", name, snap.GetName())
			}
			if _, err := s.Delete(ctx, &api.DeleteRequest{Snapshots: []string{snap.GetId()}}); err != nil {
				t.Errorf("%q can't be deleted: %v", name, err)
			}
		}
		if got, err := s.GetSnapshot(ctx, &api.GetSnapshotRequest{Snapshot: "one"}); err != nil || got.GetState() != "complete" {
			t.Errorf("the snapshot that was there: %v, %v", got, err)
		}
		if after := s.files(t); after != before {
			t.Errorf("%q: there is %s, and was %s", name, after, before)
		}
	})
}

// FuzzRestorePaths: whatever paths are to be restored, nothing is written but what the snapshot has, in the destination.
func FuzzRestorePaths(f *testing.F) {
	for _, seed := range []string{"", "/", ".", "..", "dir", "/dir/file", "dir//file/", "./dir/./file", "dir/../..", "dir/../../../evil", "../dir", "dir\x00", "\xff\xfe", "DIR", "dir/file/x", strings.Repeat("d/", 3000)} {
		f.Add([]byte(seed), []byte("dir/file"))
	}
	s := newServed(f)
	dest := filepath.Join(s.base, "dest")
	f.Fuzz(func(t *testing.T, one, two []byte) {
		before := s.files(t)
		stream, err := s.Restore(t.Context(), &api.RestoreRequest{Snapshot: "one", Destination: []byte(dest), Paths: [][]byte{one, two}, DeleteExtra: true})
		told(t, "restore", last(stream, err))
		for name := range strings.FieldsSeq(s.files(t)) {
			switch name {
			case "/backing", "/mount", "/dest", "/dest/dir", "/dest/dir/file":
			default:
				t.Errorf("%q, %q: there is %s", one, two, name)
			}
		}
		if err := os.RemoveAll(dest); err != nil {
			t.Fatal(err)
		}
		if after := s.files(t); after != before {
			t.Errorf("there is %s, and was %s", after, before)
		}
		clean, _ := cleanPaths([][]byte{one, two})
		for _, p := range clean {
			if !filepath.IsLocal(p) || path.Clean(p) != p {
				t.Errorf("%q became %q", one, p)
			}
		}
	})
}

// FuzzDestination: by no path can a restore be sent into the volume's own directories. Nothing is written here.
func FuzzDestination(f *testing.F) {
	s := newServed(f)
	link := filepath.Join(s.base, "link")
	if err := os.Symlink("backing", link); err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{"", "/", "backing", "/../backing/x", "/link/../mount", "link/new/./dir", "mount/.snapshots/one", "state", "state/../state/store", "other", "../other", "dest\x00", "\xff", strings.Repeat("d", 300), strings.Repeat("d/", 3000)} {
		f.Add(seed)
	}
	svc := &service{serviceConfig: serviceConfig{state: filepath.Join(s.base, "state"), live: &fakeLive{}, facts: Facts{Backing: filepath.Join(s.base, "backing"), Mount: filepath.Join(s.base, "mount")}, log: quiet()}}
	f.Fuzz(func(t *testing.T, name string) {
		for _, dest := range []string{name, s.base + "/" + name, link + "/" + name} {
			real, err := svc.destination(dest)
			if err != nil {
				continue
			}
			if !filepath.IsAbs(real) || filepath.Clean(real) != real {
				t.Errorf("%q became %q", dest, real)
			}
			for _, own := range []string{"backing", "mount", "state"} {
				if dir := filepath.Join(s.base, own); real == dir || strings.HasPrefix(real, dir+"/") {
					t.Errorf("%q leads to %s", dest, real)
				}
			}
			// No link is left in it, so that what was looked at is what is written to.
			if st, err := os.Lstat(real); err == nil && st.Mode()&fs.ModeSymlink != 0 {
				t.Errorf("%q became %q, a link", dest, real)
			}
		}
	})
}
