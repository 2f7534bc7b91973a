package agent

import (
	"graphvol/agent/api"
	"graphvol/index"
	"graphvol/snapshot/retain"
)

// RetainItems are the complete ones of a volume's snapshots, for a policy. Its days and hours are this machine's.
func RetainItems(list []*api.SnapshotInfo) (items []retain.Item) {
	for _, s := range list {
		if s.GetState() == index.StateComplete {
			items = append(items, retain.Item{ID: s.GetId(), Created: s.GetCreated().AsTime().Local(), Held: s.GetHold() != "", Tags: s.GetTags()})
		}
	}
	return items
}
