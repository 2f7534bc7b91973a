package agent

import (
	"graphvol/chunkstore"
	"graphvol/chunkstore/crypt"
	"graphvol/chunkstore/erasure"
	"graphvol/fs/cow/backing"
	"graphvol/fs/cow/epoch"
	"graphvol/fs/hold"
	"graphvol/index"
	"graphvol/remote"
	"graphvol/snapshot"
)

// Formats tells the version of each format that one server leaves to the next, here and on copies: what this program writes, and the newest that it
// reads. A program that knows an older version of any can't take a volume over from this one.
func Formats() map[string]int {
	return map[string]int{
		"attached":  remote.RestVersion,
		"control":   hold.ProtocolVersion,
		"encrypted": crypt.FormatVersion,
		"epoch":     epoch.FormatVersion,
		"head":      remote.HeadVersion,
		"index":     index.FormatVersion,
		"key":       crypt.KeyFileVersion,
		"keyring":   crypt.KeyringVersion,
		"manifest":  snapshot.ManifestVersion,
		"nodes":     backing.RecordVersion,
		"pack":      chunkstore.PackVersion,
		"shard":     erasure.FormatVersion,
		"store":     remote.StoreVersion,
		"volume":    factsVersion,
	}
}
