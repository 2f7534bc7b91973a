package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"graphvol/agent"
	"graphvol/agent/config"
)

// onlyFlags refuses flags beside those that are named.
func onlyFlags(cmd *cobra.Command, names ...string) (err error) {
	allowed := make(map[string]bool)
	for _, name := range names {
		allowed[name] = true
	}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if !allowed[f.Name] && err == nil {
			err = usageError{fmt.Errorf("--%s can't be given with --config: write it into the configuration", f.Name)}
		}
	})
	return err
}

// mountConfigured mounts volumes of a configuration: those with the mount points, or all. One that can't be mounted doesn't keep the others from it.
func (a *app) mountConfigured(ctx context.Context, path string, mounts []string, asJSON bool) error {
	wanted, err := configured(path, mounts)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	rows, failed := []mountRow{}, 0
	for _, o := range wanted {
		if agent.IsMounted(ctx, o) {
			fmt.Fprintf(a.err, "graphvol: %s is mounted already\n", o.Mount)
			continue
		}
		m, err := agent.Mount(ctx, self, o, a.err)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			fmt.Fprintf(a.err, "graphvol: %s: %s\n", o.Mount, agent.Message(err))
			failed++
		case asJSON:
			rows = append(rows, rowOfMount(m))
		default:
			if err := a.printMounted(ctx, m, false); err != nil {
				return err
			}
		}
	}
	if asJSON {
		err = printJSON(a.out, struct {
			Volumes []mountRow `json:"volumes"`
		}{rows})
	}
	if failed > 0 {
		return fmt.Errorf("%d of %s could not be mounted", failed, plural(int64(len(wanted)), "volume"))
	}
	return err
}

// configured gives the options of volumes of a configuration. All of it is checked before anything is mounted.
func configured(path string, mounts []string) (wanted []agent.MountOptions, err error) {
	c, err := config.Read(path)
	if err != nil {
		return nil, err
	}
	if len(c.Volumes) == 0 {
		return nil, fmt.Errorf("the configuration %s has no volumes", path)
	}
	var volumes []*config.Volume
	for _, mount := range mounts {
		v, err := c.Find(mount)
		if err != nil {
			return nil, err
		}
		volumes = append(volumes, v)
	}
	for i := range c.Volumes {
		if len(mounts) == 0 {
			volumes = append(volumes, &c.Volumes[i])
		}
	}
	var errs []error
	for _, v := range volumes {
		o, err := agent.Configured(v)
		wanted, errs = append(wanted, o), append(errs, err)
	}
	return wanted, errors.Join(errs...)
}

// configuredCopy gives the first copy that a configuration has for a volume.
func configuredCopy(path, mount, erasure string) (urls []string, layout string, err error) {
	if erasure != "" {
		return nil, "", usageError{errors.New("--erasure can't be given with --config, which has it")}
	}
	wanted, err := configured(path, []string{mount})
	if err != nil {
		return nil, "", err
	}
	copies := wanted[0].Copies
	if len(copies) == 0 {
		return nil, "", fmt.Errorf("the configuration %s has no copies for the volume mounted at %s", path, mount)
	}
	if copies[0].Erasure == "" {
		return copies[0].Targets[:1], "", nil
	}
	return copies[0].Targets, copies[0].Erasure, nil
}
