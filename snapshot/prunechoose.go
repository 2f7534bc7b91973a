package snapshot

import (
	"bytes"
	"cmp"
	"slices"

	"graphvol/chunkstore"
)

const (
	// repackGain is the least number of bytes for which a pack is rewritten.
	repackGain = 64 << 10
	// defaultUnused is how many percent of the packs' bytes may be of no use. Less costs more copying than it gives back.
	defaultUnused = 5
)

// choose tells which packs have nothing that is needed, and which are worth rewriting, oldest first.
//
// A pack of which more than half is unused is always worth it: less is written than is freed, here and on every remote, which must get the new
// pack. Small packs are, when there are many. Of the others those with the largest unused part are rewritten until no more
// than PruneOptions.MaxUnused of all is unused. If that wasn't asked for, packs that a remote has are left as they are: what is freed isn't
// worth its traffic.
func (p *pruner) choose(packs map[chunkstore.PackID]*packUse) (empty, rewrite []chunkstore.PackID, err error) {
	order, err := p.repo.db.PackIDs()
	if err != nil {
		return nil, nil, err
	}
	chosen := make(map[chunkstore.PackID]bool)
	rest := make(map[chunkstore.PackID]*packUse)
	for id, u := range packs {
		switch {
		case u.chunks == 0:
			empty = append(empty, id)
		case u.size == 0: // lost, or on a remote that another machine writes to
		case u.gain() > u.size/2 && u.gain() >= repackGain:
			chosen[id] = true
		default:
			rest[id] = u
		}
	}
	for _, some := range []func(map[chunkstore.PackID]*packUse) []chunkstore.PackID{crowded, p.wasteful} {
		for _, id := range some(rest) {
			chosen[id] = true
			delete(rest, id)
		}
	}
	for _, u := range rest {
		p.kept(u)
	}
	return empty, slices.DeleteFunc(order, func(id chunkstore.PackID) bool { return !chosen[id] }), nil
}

// wasteful gives the packs to rewrite so that at most the share of their bytes that the options allow is unused afterwards.
func (p *pruner) wasteful(packs map[chunkstore.PackID]*packUse) (out []chunkstore.PackID) {
	percent := int64(defaultUnused)
	if p.opts.MaxUnused != nil {
		percent = int64(*p.opts.MaxUnused)
	}
	var can []chunkstore.PackID
	var stored, unused int64
	for id, u := range packs {
		stored += u.size
		unused += u.gain()
		if u.gain() >= repackGain && (p.opts.MaxUnused != nil || !u.copied) {
			can = append(can, id)
		}
	}
	slices.SortFunc(can, func(a, b chunkstore.PackID) int {
		return cmp.Or(cmp.Compare(packs[b].share(), packs[a].share()), bytes.Compare(a[:], b[:]))
	})
	for _, id := range can {
		if unused*100 <= percent*stored {
			break
		}
		unused -= packs[id].gain()
		stored -= packs[id].gain()
		out = append(out, id)
	}
	return out
}

// share is the unused part of a pack.
func (u *packUse) share() float64 { return float64(u.gain()) / float64(u.size) }

// addCopied adds the packs that only a remote has to those that are here, and marks what a remote has.
func (p *pruner) addCopied(packs map[chunkstore.PackID]*packUse) error {
	remotes, err := p.repo.db.Remotes()
	if err != nil {
		return err
	}
	have := make(map[string]int64)
	for _, name := range remotes {
		objects, err := p.repo.db.RemoteObjects(name, chunkstore.PackPrefix)
		if err != nil {
			return err
		}
		for i := range objects {
			have[objects[i].Name] = objects[i].Size
		}
	}
	known, err := p.repo.db.PackIDs()
	if err != nil {
		return err
	}
	for _, id := range known {
		if _, ok := have[id.Object()]; ok && packs[id] == nil {
			packs[id] = &packUse{}
		}
	}
	for id, u := range packs {
		var size int64
		if size, u.copied = have[id.Object()]; u.copied && u.size == 0 {
			u.size, u.away = size, true
		}
	}
	return nil
}
