package cow

import (
	"fmt"
	"slices"

	"graphvol/fs/cow/epoch"
)

// need is what one unsealed snapshot may need of one inode.
//
// A snapshot needs what its epoch changed, and what the epochs of older unsealed snapshots changed too: if one of these is
// lost, its changes become part of the next one's.
type need struct {
	e    *Ended
	full bool
	ins  []*epoch.Inode
}

// needs lists the unsealed snapshots that may need something of an inode, before its first change in the running epoch.
func (v *Volume) needs(st *inodeState, gen uint64) (ns []need) {
	list := *v.unsealed.Load()
	if len(list) == 0 || st.fresh.Load() {
		return nil
	}
	full := false
	var ins []*epoch.Inode
	for _, e := range list {
		full = full || e.full.Load()
		for _, p := range *e.parts.Load() {
			// Another generation is an inode that is gone; what was needed of it is held or saved.
			if in := p.ep.Find(st.ino); marked(in) && (in.Gen() == gen || in.Gen() == 0 || gen == 0) {
				ins = append(ins, in)
			}
		}
		if (full || len(ins) > 0) && e.Err() == nil && !e.isDone(st.ino) {
			ns = append(ns, need{e, full, ins[:len(ins):len(ins)]})
		}
	}
	return ns
}

// block tells whether the snapshot needs a block and no preimage of it is there yet.
func (n *need) block(im *images, ino, b uint64) bool {
	if !n.full {
		dirty := false
		for _, in := range n.ins {
			dirty = dirty || in.Dirty(b, 1)
		}
		if !dirty {
			return false
		}
	}
	return !im.hasBlock(n.e.number, ino, b)
}

// anyBlock tells whether the snapshot may need one of n blocks.
func (n *need) anyBlock(first, blocks uint64) bool {
	return n.full || slices.ContainsFunc(n.ins, func(in *epoch.Inode) bool { return in.Dirty(first, blocks) })
}

// content tells whether the snapshot may need any block.
func (n *need) content() bool {
	if n.full {
		return true
	}
	for _, in := range n.ins {
		if in.HasContent() || in.HasFresh() || in.Count() > 0 {
			return true
		}
	}
	return false
}

// needName lists the snapshots that need what a name means and have no preimage of it.
func (v *Volume) needName(ns []need, dir uint64, name string) (es []*Ended) {
	for i := range ns {
		need := ns[i].full
		for _, in := range ns[i].ins {
			need = need || in.DirtyName(name)
		}
		if need && !v.images.hasName(ns[i].e.number, dir, name) {
			es = append(es, ns[i].e)
		}
	}
	return es
}

// lose gives up snapshots whose preimages can't be saved. The request that would have needed them goes on.
func (v *Volume) lose(es []*Ended, cause error) {
	for _, e := range es {
		err := fmt.Errorf("%w: %w; free space or repair %s, then take another snapshot", ErrPreimage, cause, v.images.dir)
		if e.fail(err) {
			v.log.Error("snapshot lost, its changes go into the next one", "epoch", e.number, "err", err)
		}
	}
}
