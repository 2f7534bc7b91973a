package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// peer is another program that can back a directory up again and again into one repository.
type peer struct {
	name string
	repo string
	env  []string
	init []string
	save func(source string, n int) []string
	// prune gives back the space of what was forgotten.
	prune []string
}

func (b *bench) peers() []*peer { return peersIn(b.dir) }

// peersIn gives the peers with everything they keep in one directory.
func peersIn(dir string) []*peer {
	borg := &peer{name: "borg", repo: filepath.Join(dir, "borg")}
	borg.env = []string{
		"BORG_BASE_DIR=" + filepath.Join(dir, "borg-base"),
		"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes", "BORG_RELOCATED_REPO_ACCESS_IS_OK=yes",
	}
	borg.init = []string{"borg", "init", "--encryption=none", borg.repo}
	borg.save = func(source string, n int) []string {
		return []string{"borg", "create", fmt.Sprintf("%s::a%d", borg.repo, n), source}
	}
	borg.prune = []string{"borg", "compact", borg.repo}
	restic := &peer{name: "restic", repo: filepath.Join(dir, "restic")}
	restic.env = []string{"RESTIC_PASSWORD=bench", "RESTIC_CACHE_DIR=" + filepath.Join(dir, "restic-cache")}
	restic.init = []string{"restic", "-q", "init", "-r", restic.repo}
	restic.save = func(source string, _ int) []string {
		return []string{"restic", "-q", "backup", "-r", restic.repo, source}
	}
	restic.prune = []string{"restic", "-q", "prune", "-r", restic.repo}
	return []*peer{borg, restic}
}

// fresh makes an empty repository.
func (p *peer) fresh(ctx context.Context) error {
	if err := os.RemoveAll(p.repo); err != nil {
		return err
	}
	return p.run(ctx, p.init)
}

// backup returns the seconds it took and the bytes by which the repository grew.
func (p *peer) backup(ctx context.Context, source string, n int) (seconds float64, stored int64, err error) {
	before, err := diskUse(p.repo)
	if err != nil {
		return 0, 0, err
	}
	settle()
	start := time.Now()
	if err := p.run(ctx, p.save(source, n)); err != nil {
		return 0, 0, err
	}
	seconds = time.Since(start).Seconds()
	after, err := diskUse(p.repo)
	return seconds, after - before, err
}

func (p *peer) run(ctx context.Context, args []string) error {
	_, err := p.output(ctx, args)
	return err
}

// output runs a command and returns what it prints.
func (p *peer) output(ctx context.Context, args []string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), p.env...)
	// A file, not a pipe: a mount's daemon keeps the descriptor, and a pipe's end would be waited for.
	out, err := os.CreateTemp("", "bench-peer")
	if err != nil {
		return nil, err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	text, rerr := os.ReadFile(out.Name())
	if err != nil {
		return nil, fmt.Errorf("%v: %w: %s", args, err, text)
	}
	return text, rerr
}

// diskUse is the sum of the sizes of all files below dir.
func diskUse(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}
