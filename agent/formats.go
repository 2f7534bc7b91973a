package agent

import (
	"graphvol/chunkstore"
	"graphvol/fs/cow/backing"
	"graphvol/fs/cow/epoch"
	"graphvol/fs/hold"
	"graphvol/index"
	"graphvol/snapshot"
)

// Formats tells the version of each format that one server leaves to the next: what this program writes, and the newest that it
// reads. A program that knows an older version of any can't take a volume over from this one.
func Formats() map[string]int {
	return map[string]int{
		"control":  hold.ProtocolVersion,
		"epoch":    epoch.FormatVersion,
		"index":    index.FormatVersion,
		"manifest": snapshot.ManifestVersion,
		"nodes":    backing.RecordVersion,
		"pack":     chunkstore.PackVersion,
		"volume":   factsVersion,
	}
}
