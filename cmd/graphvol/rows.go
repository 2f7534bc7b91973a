package main

import (
	"time"

	"graphvol/agent/api"
)

// snapshotRow is what --json tells of a snapshot. The names are fixed: scripts rely on them.
type snapshotRow struct {
	ID             string    `json:"id"`
	Name           string    `json:"name"`
	Kind           string    `json:"kind"`
	Parent         string    `json:"parent"`
	State          string    `json:"state"`
	Created        time.Time `json:"created"`
	PauseMS        float64   `json:"pause_ms"`
	SealMS         float64   `json:"seal_ms"`
	Files          int64     `json:"files"`
	Bytes          int64     `json:"bytes"`
	DirtyBytes     int64     `json:"dirty_bytes"`
	StoredBytes    int64     `json:"stored_bytes"`
	ChecksumSHA256 string    `json:"checksum_sha256"`
	ManifestSHA256 string    `json:"manifest_sha256,omitempty"`
	Remotes        []string  `json:"remotes,omitempty"` // that have it
	Hold           string    `json:"hold,omitempty"`    // why it can't be deleted
	Tags           []string  `json:"tags,omitempty"`
	Error          string    `json:"error,omitempty"`
}

func rowOf(s *api.SnapshotInfo) snapshotRow {
	return snapshotRow{
		ID: s.GetId(), Name: s.GetName(), Kind: s.GetKind(), Parent: s.GetParent(), State: s.GetState(),
		Created: s.GetCreated().AsTime(),
		PauseMS: millis(s.GetPause().AsDuration()), SealMS: millis(s.GetSeal().AsDuration()),
		Files: s.GetFiles(), Bytes: s.GetBytes(), DirtyBytes: s.GetDirtyBytes(), StoredBytes: s.GetStoredBytes(),
		ChecksumSHA256: s.GetChecksumSha256(), ManifestSHA256: s.GetManifestSha256(), Error: s.GetError(), Remotes: s.GetRemotes(), Hold: s.GetHold(), Tags: s.GetTags(),
	}
}

// millis keeps microseconds: pauses are often shorter than a millisecond.
func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// rangeRow is a run of bytes in a file.
type rangeRow struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

func rangesOf(rs []*api.Range) []rangeRow {
	if len(rs) == 0 {
		return nil
	}
	out := make([]rangeRow, len(rs))
	for i, r := range rs {
		out[i] = rangeRow{r.GetOffset(), r.GetLength()}
	}
	return out
}
