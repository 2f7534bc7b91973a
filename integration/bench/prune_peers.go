package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// peerSubject is the i-th peer.
func peerSubject(i int) pruneSubject {
	return pruneSubject{
		name: peersIn("")[i].name,
		history: func(ctx context.Context, dir string, snapshots int, change func(string, int) error) error {
			return peersIn(dir)[i].history(ctx, filepath.Join(dir, "plain"), snapshots, change)
		},
		prune: func(ctx context.Context, dir string) (seconds float64, before, after, unused int64, err error) {
			p := peersIn(dir)[i]
			seconds, before, after, err = timed(p.repo, func() error { return p.run(ctx, p.prune) })
			return seconds, before, after, 0, err
		},
	}
}

func (p *peer) history(ctx context.Context, plain string, snapshots int, change func(string, int) error) error {
	if err := os.MkdirAll(plain, 0o755); err != nil {
		return err
	}
	if err := p.fresh(ctx); err != nil {
		return err
	}
	for n := range snapshots {
		if err := change(filepath.Join(plain, pagesName), n); err != nil {
			return err
		}
		if err := p.run(ctx, p.save(plain, n)); err != nil {
			return err
		}
	}
	forget, err := p.everySecond(ctx, snapshots)
	if err != nil {
		return err
	}
	return p.run(ctx, forget)
}

// everySecond is the command that forgets every second backup, beginning with the first.
func (p *peer) everySecond(ctx context.Context, backups int) ([]string, error) {
	if p.name == "borg" {
		args := []string{"borg", "delete", p.repo}
		for n := 0; n < backups; n += 2 {
			args = append(args, fmt.Sprintf("a%d", n))
		}
		return args, nil
	}
	out, err := p.output(ctx, []string{"restic", "snapshots", "--json", "-r", p.repo})
	if err != nil {
		return nil, err
	}
	var list []struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, fmt.Errorf("restic snapshots --json: %w", err)
	}
	if len(list) != backups {
		return nil, fmt.Errorf("restic has %d snapshots, want %d", len(list), backups)
	}
	args := []string{"restic", "-q", "forget", "-r", p.repo}
	for n := 0; n < len(list); n += 2 {
		args = append(args, list[n].ID)
	}
	return args, nil
}
