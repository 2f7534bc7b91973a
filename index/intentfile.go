package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"graphvol/internal/durable"
)

// The file of intents; its format is in the package documentation.
const (
	intentMagic     = "GVINTNT\n"
	intentVersion   = 1
	intentFrame     = 512 // a sector: written whole or not at all
	intentHead      = 16
	intentLen       = 24
	intentsPerFrame = (intentFrame - intentHead) / intentLen
	intentGrow      = 128 // frames
)

// anyEpoch labels an intent that concerns whatever epoch: that earlier intents are lost.
const anyEpoch = ^uint64(0)

// intentFile is the file as an array of frames. It is used by one goroutine at a time.
type intentFile struct {
	f      *os.File
	frames uint32 // how many the file has, the header not counted; all of them are written, none is a hole
}

// openIntentFile opens or makes the file and calls found for every frame that is in use. lost says that the file
// was not there or not readable, or that fresh asks for a new one; it is a new one then.
func openIntentFile(path string, fresh bool, found func(frame, epoch uint64, in []Intent)) (f *intentFile, lost bool, damaged int, err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, 0, err
	}
	f = &intentFile{f: file}
	if lost = fresh; !fresh {
		lost, damaged, err = f.read(found)
	}
	if err == nil && lost {
		err = f.create(filepath.Dir(path))
	}
	if err != nil {
		file.Close()
		return nil, false, 0, fmt.Errorf("intents %s: %w", path, err)
	}
	return f, lost, damaged, nil
}

// create makes the file empty, durably, whatever it was.
func (f *intentFile) create(dir string) error {
	if err := f.f.Truncate(0); err != nil {
		return err
	}
	f.frames = 0
	head := make([]byte, intentFrame)
	copy(head[4:], intentMagic)
	binary.LittleEndian.PutUint32(head[12:], intentVersion)
	binary.LittleEndian.PutUint32(head, checksum(head[4:]))
	if _, err := f.f.WriteAt(head, 0); err != nil {
		return err
	}
	if err := f.grow(); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}

// grow makes the file longer by written zeros, durably: overwriting them later changes no metadata of the
// filesystem, so that syncing an intent writes nothing but its sector.
func (f *intentFile) grow() error {
	if _, err := f.f.WriteAt(make([]byte, intentGrow*intentFrame), intentFrame*(1+int64(f.frames))); err != nil {
		return err
	}
	if err := f.f.Sync(); err != nil {
		return err
	}
	f.frames += intentGrow
	return nil
}

func (f *intentFile) read(found func(frame, epoch uint64, in []Intent)) (lost bool, damaged int, err error) {
	p, err := io.ReadAll(f.f)
	if err != nil {
		return false, 0, err
	}
	if err := checkIntentHeader(p); err != nil {
		if errors.Is(err, ErrNewerFormat) {
			return false, 0, err
		}
		return true, 0, nil
	}
	for p = p[intentFrame:]; len(p) >= intentFrame; p = p[intentFrame:] {
		epoch, in, err := decodeIntentFrame(p[:intentFrame])
		switch {
		case err != nil:
			damaged++ // a write that a power cut tore, which nobody was told of
		case epoch != 0:
			found(uint64(f.frames), epoch, in)
		}
		f.frames++
	}
	return false, damaged, nil
}

func checkIntentHeader(p []byte) error {
	if len(p) < intentFrame {
		return errShort
	}
	p = p[:intentFrame]
	if binary.LittleEndian.Uint32(p) != checksum(p[4:]) || string(p[4:12]) != intentMagic {
		return errors.New("wrong header")
	}
	if v := binary.LittleEndian.Uint32(p[12:]); v != intentVersion {
		return fmt.Errorf("format version %d, this software reads version %d: %w", v, intentVersion, ErrNewerFormat)
	}
	return nil
}

// write stores intents of one epoch in a frame. It is durable after sync.
func (f *intentFile) write(frame uint32, epoch uint64, in []Intent) error {
	_, err := f.f.WriteAt(encodeIntentFrame(epoch, in), intentFrame*(1+int64(frame)))
	return err
}

// clear makes a frame free, not durably: if it comes back after a power cut, it says too much and harms nobody.
func (f *intentFile) clear(frame uint32) error {
	_, err := f.f.WriteAt(make([]byte, intentHead), intentFrame*(1+int64(frame)))
	return err
}

func (f *intentFile) sync() error {
	if err := unix.Fdatasync(int(f.f.Fd())); err != nil {
		return fmt.Errorf("fdatasync: %w", err)
	}
	return nil
}

func encodeIntentFrame(epoch uint64, in []Intent) []byte {
	p := make([]byte, intentFrame)
	binary.LittleEndian.PutUint16(p[4:], uint16(len(in)))
	binary.LittleEndian.PutUint64(p[8:], epoch)
	for i, n := range in {
		q := p[intentHead+i*intentLen:]
		binary.LittleEndian.PutUint64(q, n.Ino)
		binary.LittleEndian.PutUint64(q[8:], n.Gen)
		binary.LittleEndian.PutUint32(q[16:], n.Region)
		q[20] = byte(n.Kind)
	}
	binary.LittleEndian.PutUint32(p, checksum(p[4:]))
	return p
}

// decodeIntentFrame returns epoch 0 for a free frame.
func decodeIntentFrame(p []byte) (epoch uint64, in []Intent, err error) {
	if len(p) != intentFrame {
		return 0, nil, errShort
	}
	if epoch = binary.LittleEndian.Uint64(p[8:]); epoch == 0 {
		return 0, nil, nil
	}
	if binary.LittleEndian.Uint32(p) != checksum(p[4:]) {
		return 0, nil, errors.New("wrong checksum")
	}
	n := int(binary.LittleEndian.Uint16(p[4:]))
	if n > intentsPerFrame {
		return 0, nil, fmt.Errorf("%d intents in a frame", n)
	}
	for i := range n {
		q := p[intentHead+i*intentLen:]
		in = append(in, Intent{
			Ino: binary.LittleEndian.Uint64(q), Gen: binary.LittleEndian.Uint64(q[8:]),
			Region: binary.LittleEndian.Uint32(q[16:]), Kind: IntentKind(q[20]),
		})
	}
	return epoch, in, nil
}
