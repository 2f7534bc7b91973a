package cow

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"graphvol/fs/cow/backing"
	"graphvol/fs/cow/epoch"
	"graphvol/index"
)

// Facts in the index.
const (
	metaClean   = "cow.clean"   // "1": unmounted cleanly
	metaToken   = "cow.token"   // of the boot and mount in which epochs' files were last written
	metaScanned = "cow.scanned" // token of the mount whose scan is complete
	metaFull    = "cow.full"    // "1": the next snapshot must be a full one
	// metaBacking is the token of the boot and mount in which the backing was written last.
	metaBacking = "cow.backing"
	// metaUnsettled is "1" while the backing's disk may lack something of what a full snapshot has sealed.
	metaUnsettled = "cow.unsettled"
)

// recovery is what is found of earlier mounts.
type recovery struct {
	v       *Volume
	clean   bool
	trusted bool // the epochs' files are what the process before wrote
	lived   bool // the backing's filesystem has stayed mounted, so nothing that was written to it is lost
	full    bool
	sealed  uint64 // greatest epoch that a complete snapshot has ended
	last    uint64 // greatest epoch number seen anywhere
	parts   []*part
	safe    map[uint64]bool // epochs with a marker, and whether all that happened in them is announced
	doubts  doubts

	unsettled []uint64 // epochs that are sealed, and in the index
}

// recover loads the dirty map and begins the running epoch.
func (v *Volume) recover(state string, takeover bool) error {
	v.token, v.backingToken = mountToken(mountOf(state)), mountToken(v.tree.Mount())
	rc := &recovery{v: v, doubts: doubts{dir: map[uint64]bool{}}}
	var unread error
	meta := func(key string) string {
		val, err := v.db.Meta(key)
		unread = errors.Join(unread, err)
		return string(val)
	}
	rc.clean = meta(metaClean) == "1"
	rc.trusted = takeover || v.token != "" && meta(metaToken) == v.token
	rc.lived = takeover || v.backingToken != "" && meta(metaBacking) == v.backingToken
	unsettledFull := meta(metaUnsettled) != ""
	rc.full = meta(metaFull) != "" || unsettledFull && !rc.lived
	scanned := takeover && v.token != "" && meta(metaScanned) == v.token
	if unread != nil {
		return unread
	}
	if err := rc.load(); err != nil {
		return err
	}
	if !rc.trusted {
		rc.persist()
	}
	v.leftUnsettled(unsettled{rc.unsettled, unsettledFull}, rc.lived)
	v.mu.full = rc.full
	if rc.full && meta(metaFull) == "" {
		v.setFull()
	}
	calm := rc.full || scanned || v.recorded == nil // everything counts as changed, or it is known that nothing did unseen
	if err := v.noteMount(calm); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	if err := rc.begin(takeover && calm); err != nil {
		return err
	}
	v.setCarriedLocked(rc.parts)
	if !rc.clean {
		v.log.Info("the volume was not unmounted cleanly", "takeover", takeover, "epochs", len(rc.parts), "trusted", rc.trusted, "full", rc.full)
	}
	if calm {
		close(v.scan.done)
	} else {
		v.startScan(rc.doubts)
	}
	return nil
}

// begin begins the running epoch, or goes on with that of the server before. What can't be written doesn't keep the volume from being used.
func (rc *recovery) begin(goOn bool) error {
	v := rc.v
	if goOn {
		if r := rc.resume(); r != nil {
			v.images.add(r.label())
			v.run.Store(r)
			rc.parts = rc.parts[:len(rc.parts)-1]
			return nil
		}
	}
	n := rc.last + 1
	v.images.add(n - 1)
	r, err := v.prepare(n)
	if err != nil {
		v.log.Error("changes can't be recorded durably; free space in the state directory, then take a snapshot", "epoch", n, "err", err)
		ep, err := epoch.FromDirty(n, func(func(*index.Dirty) bool) {})
		if err != nil {
			return err
		}
		r = newRunning(ep)
		r.intents.broken.Store(true)
		v.setFull() // after the death of everything nobody knows of this epoch
	}
	v.run.Store(r)
	return nil
}

// resume makes the epoch in which the server before was killed the running one again, if its marks and its intents are all there. A new one would
// need a marker on the disk, and again an intent for whatever is changed next; while clients wait for this server, nothing should wait for the disk.
// No snapshot needs a preimage from that epoch: those that were not sealed have failed.
func (rc *recovery) resume() *running {
	if len(rc.parts) == 0 {
		return nil
	}
	p := rc.parts[len(rc.parts)-1]
	n := p.ep.Number()
	if p.indexed || n != rc.last || !rc.safe[n] || !rc.trusted || p.ep.Damaged() > 0 || !p.ep.Durable() {
		return nil
	}
	list, err := rc.v.db.Intents(n)
	if err != nil {
		return nil
	}
	r := newRunning(p.ep)
	r.resumed = true
	for _, i := range list {
		switch i.Kind {
		case index.IntentAllAttrs:
			r.intents.allAttrs.Store(true)
		case index.IntentAllDirs:
			r.intents.allDirs.Store(true)
		}
	}
	return r
}

// noteMount says durably that the volume isn't unmounted cleanly, by which mount its epochs' files can be trusted, and whether a server
// that takes over must look for changes made while it was unmounted: an earlier mount's scan tells nothing of this one's.
func (v *Volume) noteMount(calm bool) error {
	want := map[string]string{metaClean: "", metaToken: v.token, metaBacking: v.backingToken, metaScanned: ""}
	if calm {
		want[metaScanned] = v.token
	}
	var errs error
	for key, val := range want {
		if have, err := v.db.Meta(key); err == nil && string(have) == val {
			continue // a write would wait for the disk
		}
		errs = errors.Join(errs, v.db.PutMeta(key, orNil(val)))
	}
	return errs
}

func orNil(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}

// load reads dirty maps from the index and from epochs' files.
func (rc *recovery) load() error {
	known, sealed, err := rc.v.parentKnown()
	if err != nil {
		return err
	}
	rc.full = rc.full || !known
	rc.sealed = sealed
	rc.last = rc.sealed
	rc.v.db.DropIntents(sealed)
	indexed, err := rc.loadIndexed()
	if err != nil {
		return err
	}
	if err := rc.loadFiles(indexed); err != nil {
		return err
	}
	slices.SortFunc(rc.parts, func(a, b *part) int { return int(a.ep.Number()) - int(b.ep.Number()) })
	return nil
}

func (rc *recovery) loadIndexed() (map[uint64]bool, error) {
	db := rc.v.db
	nums, err := db.Epochs()
	if err != nil {
		return nil, err
	}
	indexed := map[uint64]bool{}
	for _, n := range nums {
		rc.last = max(rc.last, n)
		if n <= rc.sealed {
			rc.unsettled = append(rc.unsettled, n)
			if rc.lived {
				continue
			}
		}
		ep, err := epoch.FromIndex(db, n)
		if err != nil {
			rc.v.log.Error("dirty map unreadable, the next snapshot is a full one", "epoch", n, "err", err)
			rc.full = true
			continue
		}
		if n <= rc.sealed {
			rc.doubts.content = append(rc.doubts.content, ep)
			continue
		}
		indexed[n] = true
		rc.parts = append(rc.parts, &part{ep: ep, indexed: true})
	}
	return indexed, nil
}

// loadFiles reads the files of epochs that the index doesn't have.
func (rc *recovery) loadFiles(indexed map[uint64]bool) error {
	v := rc.v
	nums, err := epoch.List(v.dirs.epochs)
	if err != nil {
		return err
	}
	marks, err := readMarkers(v.dirs.markers)
	if err != nil {
		return err
	}
	for n := range marks {
		nums = append(nums, n)
	}
	rc.safe = marks
	slices.Sort(nums)
	for _, n := range slices.Compact(nums) {
		rc.last = max(rc.last, n)
		if indexed[n] || n <= rc.sealed {
			if err := errors.Join(epoch.Delete(v.dirs.epochs, n), v.marker(n).remove()); err != nil {
				return err
			}
			continue
		}
		safe, announced := marks[n]
		rc.loadFile(n, safe && announced)
	}
	if err := epoch.DeleteRests(v.dirs.epochs); err != nil {
		v.log.Warn("rests of old epochs stay", "err", err)
	}
	return nil
}

// loadFile reads one epoch's files, and its intents if the files may lack something.
func (rc *recovery) loadFile(n uint64, announced bool) {
	v := rc.v
	ep, err := epoch.Load(v.dirs.epochs, n)
	lost := err != nil || ep.Damaged() > 0
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			v.log.Warn("dirty map's files unreadable", "epoch", n, "err", err)
		}
		ep, _ = epoch.FromDirty(n, func(func(*index.Dirty) bool) {})
	} else if !ep.Durable() {
		v.log.Warn("the dirty map was in memory only, the next snapshot is a full one", "epoch", n, "err", ep.DurableErr())
		rc.full = true
	}
	if err == nil && ep.Doubtful() > 0 {
		v.log.Warn("the dirty map's files are damaged, what is concerned counts as changed", "epoch", n, "records", ep.Doubtful())
	}
	if lost || !rc.trusted {
		if !announced {
			rc.full = true
		}
		if err := rc.addIntents(ep); err != nil {
			v.log.Warn("intents unreadable, the next snapshot is a full one", "epoch", n, "err", err)
			rc.full = true
		}
		rc.trusted = false
	}
	rc.parts = append(rc.parts, &part{ep: ep})
}

// addIntents marks everything that was announced. The marks that were made of it may not have reached the disk.
func (rc *recovery) addIntents(ep *epoch.Epoch) error {
	list, err := rc.v.db.Intents(ep.Number())
	if err != nil {
		return err
	}
	const blocks = 1 << (regionShift - blockShift)
	for _, i := range list {
		switch i.Kind {
		case index.IntentAll:
			rc.full = true
		case index.IntentAllAttrs:
			rc.doubts.attrs = true
		case index.IntentAllDirs:
			rc.doubts.dirs = true
		case index.IntentDir:
			rc.doubts.dir[i.Ino] = true
			in := ep.Inode(i.Ino, i.Gen)
			in.MarkAttr()
			in.MarkAllNames()
		case index.IntentAttr:
			ep.Inode(i.Ino, i.Gen).MarkAttr()
		case index.IntentFile:
			in := ep.Inode(i.Ino, i.Gen)
			in.MarkAttr()
			in.MarkContent()
		case index.IntentRegion:
			in := ep.Inode(i.Ino, i.Gen)
			in.MarkAttr()
			in.MarkBlocks(uint64(i.Region)*blocks, blocks)
		}
	}
	return nil
}

// persist puts what came from files and intents into the index, before files of this mount are trusted.
func (rc *recovery) persist() {
	v := rc.v
	for _, p := range rc.parts {
		if p.indexed {
			continue
		}
		if err := v.store(p); err != nil {
			v.log.Error("recovered dirty map can't be stored, the next snapshot is a full one", "epoch", p.ep.Number(), "err", err)
			rc.full = true
		}
	}
}

// mountToken names this boot and one mount of a filesystem: while it stays the same, what a process wrote there is what it
// left behind. Empty where the kernel can't tell.
func mountToken(mount uint64) string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || mount == 0 {
		return ""
	}
	return fmt.Sprintf("%s/%d", strings.TrimSpace(string(boot)), mount)
}

// mountOf is the number of the mount that a directory is on, 0 if the kernel can't tell.
func mountOf(dir string) uint64 {
	f, err := os.Open(dir)
	if err != nil {
		return 0
	}
	defer f.Close()
	return backing.MountOf(int(f.Fd()))
}
