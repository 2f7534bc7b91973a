package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"graphvol/index"
)

var (
	// errVanished says that a snapshot is missing though nobody deleted it.
	errVanished = errors.New("it has vanished from the catalogue without having been deleted: perhaps the index is an older copy; graphvol rebuild makes one of what is in the store")
	// errManifestDiffers says that manifest and catalogue contradict each other.
	errManifestDiffers = errors.New("the manifest isn't the one that was written for this snapshot; it was changed, or the index was")
)

// chain checks the manifests of snaps, and that each one's parent is in the catalogue, or was deleted.
func (v *verifier) chain(ctx context.Context, snaps []index.Snapshot) error {
	strays, err := v.repo.strayManifests(ctx)
	if err != nil {
		return err
	}
	for _, s := range strays {
		if !s.expected {
			v.report(Problem{Err: fmt.Errorf("snapshot of %s: %w", ManifestObject(s.id), errVanished)})
		}
	}
	all, err := v.repo.Snapshots()
	if err != nil {
		return err
	}
	// After the catalogue: who is deleted in between is on the list.
	list, err := v.repo.deleted()
	if err != nil {
		return err
	}
	hashes := list.Manifests
	for _, s := range all {
		if s.State == index.StateComplete {
			hashes[s.ID] = s.ManifestSHA256
		}
	}
	for _, s := range snaps {
		if err := ctx.Err(); err != nil {
			return err
		}
		problem := v.manifest(ctx, &s, hashes)
		if problem == nil {
			continue
		}
		gone, err := v.deletedMeanwhile(s.ID)
		if err != nil {
			return err
		}
		if gone {
			continue
		}
		v.report(Problem{Snapshot: s.Name, Err: fmt.Errorf("%w; the data isn't affected", problem)})
	}
	return nil
}

// deletedMeanwhile tells whether a snapshot isn't in the catalogue any more: its data is pinned, its manifest isn't.
func (v *verifier) deletedMeanwhile(id string) (bool, error) {
	all, err := v.repo.Snapshots()
	return !slices.ContainsFunc(all, func(s index.Snapshot) bool { return s.ID == id }), err
}

// manifest checks the manifest of one snapshot. hashes has those of all that may be a parent.
func (v *verifier) manifest(ctx context.Context, s *index.Snapshot, hashes map[string]string) error {
	m, sum, err := v.repo.Manifest(ctx, s.ID)
	if err != nil {
		return err
	}
	if sum != s.ManifestSHA256 {
		return fmt.Errorf("its SHA-256 is %s, the catalogue has %s: %w", sum, s.ManifestSHA256, errManifestDiffers)
	}
	if err := v.compareManifest(&m, s); err != nil || m.Parent == "" {
		return err
	}
	return checkParent(&m, hashes)
}

func (v *verifier) compareManifest(m *Manifest, s *index.Snapshot) error {
	for _, f := range []struct {
		what      string
		got, want any
	}{
		{"volume", m.Volume, v.repo.volume},
		{"name", m.Name, s.Name},
		{"tags", strings.Join(m.Tags, ","), strings.Join(s.Tags, ",")},
		{"parent", m.Parent, s.Parent},
		{"created", m.Created.UTC(), s.Created.UTC()},
		{"checksum_sha256", m.ChecksumSHA256, s.Root.String()},
		{"kind", m.Kind, s.Kind},
		{"files", m.Files, s.Files},
		{"bytes", m.Bytes, s.Bytes},
		{"dirty_bytes", m.DirtyBytes, s.DirtyBytes},
		{"stored_bytes", m.StoredBytes, s.StoredBytes},
	} {
		if f.got != f.want {
			return fmt.Errorf("%s is %v, the catalogue has %v: %w", f.what, f.got, f.want, errManifestDiffers)
		}
	}
	return nil
}

func checkParent(m *Manifest, hashes map[string]string) error {
	want, ok := hashes[m.Parent]
	switch {
	case !ok:
		return fmt.Errorf("the snapshot before, %s: %w", m.Parent, errVanished)
	case want != m.ParentManifestSHA256:
		return fmt.Errorf("the manifest before, of snapshot %s, has the SHA-256 %s, not %s: %w", m.Parent, want, m.ParentManifestSHA256, errManifestDiffers)
	}
	return nil
}
