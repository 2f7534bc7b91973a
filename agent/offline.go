package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"graphvol/snapshot"
)

// offline is the service of a volume that isn't mounted, in the process of a command.
type offline struct{ *service }

// openOffline opens the repository of a volume that isn't mounted. index.ErrInUse if another process has it.
func openOffline(ctx context.Context, p Place, log *slog.Logger) (*offline, error) {
	facts, err := ReadFacts(p.State)
	if errors.Is(err, ErrNewerFormat) {
		return nil, statusOf(ctx, log, "opening the volume", err)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Warn("the volume works without these facts; the next mount writes them anew", "err", err)
	}
	cfg, err := storeOf(p.State, "", log)
	if err != nil {
		return nil, statusOf(ctx, log, "opening the volume", err)
	}
	repo, err := snapshot.Open(ctx, cfg)
	if indexUnusable(err) {
		err = indexError(p.State, adviceOffline(facts.Backing, p.State, err), err)
	}
	if err != nil {
		return nil, statusOf(ctx, log, "opening the volume", err)
	}
	return &offline{newService(serviceConfig{state: p.State, facts: facts, repo: repo, log: log})}, nil
}

// Close closes the repository.
func (o *offline) Close() error { return o.repo.Close() }
