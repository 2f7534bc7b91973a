package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"graphvol/agent"
	"graphvol/chunkstore/limit"
)

// applyMountOptions translates a list of options as fstab has them. Of those that contradict each other the last one counts.
func applyMountOptions(o *agent.MountOptions, list string, sloppy bool) error {
	for _, opt := range splitOptions(list) {
		name, value, hasValue := strings.Cut(opt, "=")
		if ignoredOption(name) {
			continue
		}
		known, err := applyMountOption(o, name, value, hasValue)
		if err != nil {
			return err
		}
		if !known && !sloppy {
			return fmt.Errorf("unknown mount option %q: see docs/operations.md for those that there are", opt)
		}
	}
	return nil
}

func applyMountOption(o *agent.MountOptions, name, value string, hasValue bool) (known bool, err error) {
	switch name {
	case "ro", "remount":
		return true, fmt.Errorf("a volume can't be mounted with the option %q: it is for a database that writes; snapshots are read-only in MOUNT/.snapshots", name)
	case "suid", "nosuid":
		o.AllowSuid = name == "suid"
	case "dev", "nodev":
		o.AllowDev = name == "dev"
	case "exec", "noexec":
		o.NoExec = name == "noexec"
	case "private", "allow_other":
		o.AllowOther = name == "allow_other"
	default:
		return applyValue(o, name, value)
	}
	if hasValue {
		return true, fmt.Errorf("the mount option %q takes no value", name)
	}
	return true, nil
}

// applyValue applies an option that has one, named as the flags of graphvol mount.
func applyValue(o *agent.MountOptions, name, value string) (known bool, err error) {
	switch name {
	case "state":
		if o.State = value; !filepath.IsAbs(value) {
			return true, fmt.Errorf("the mount option state=%s must be an absolute path", value)
		}
	case "cache":
		if o.Cache = value; value == "" {
			err = fmt.Errorf("choose %s or %s", agent.CacheWriteback, agent.CacheThrough)
		}
	case "target":
		if c := copiesOf(o); value != "" {
			c.Targets = append(c.Targets, value)
		} else {
			err = errors.New("it is a place such as dir:/backup/graph")
		}
	case "erasure":
		copiesOf(o).Erasure = value
	case "encrypt":
		copiesOf(o).Encrypt = value
	case "snapdir":
		if o.SnapDir = value; value == "" {
			err = errors.New("it names a directory")
		}
	case "hang-timeout":
		o.HangTimeout, err = time.ParseDuration(value)
	case "settle-after":
		o.SettleAfter, err = time.ParseDuration(value)
	case "scrub-every":
		o.ScrubEvery, err = time.ParseDuration(value)
	case "upload-limit":
		o.UploadLimit, err = limit.ParseRate(value)
	case "scrub-limit":
		o.ScrubLimit, err = limit.ParseRate(value)
	case "snapshot-timeout":
		o.SnapshotTimeout, err = time.ParseDuration(value)
	case "max-concurrent":
		o.MaxConcurrent, err = strconv.Atoi(value)
	case "log-level":
		err = o.LogLevel.UnmarshalText([]byte(value))
	default:
		return false, nil
	}
	if err != nil {
		return true, fmt.Errorf("the mount option %s=%s: %w", name, value, err)
	}
	return true, nil
}

// copiesOf are the copies that a list of options can ask for.
func copiesOf(o *agent.MountOptions) *agent.CopyOptions {
	if len(o.Copies) == 0 {
		o.Copies = make([]agent.CopyOptions, 1)
	}
	return &o.Copies[0]
}

// ignoredOption knows what is for mount(8), systemd or people, or is so anyway.
func ignoredOption(name string) bool {
	return name == "" || strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-") || slices.Contains([]string{
		"defaults", "rw", "async", "auto", "noauto", "nofail", "_netdev", "comment", "helper", "uhelper", "silent", "loud", "default_permissions",
		"user", "nouser", "users", "nousers", "owner", "noowner", "group", "nogroup",
		"atime", "noatime", "relatime", "norelatime", "strictatime", "nostrictatime", "diratime", "nodiratime", "lazytime", "nolazytime",
	}, name)
}

// splitOptions splits a list at its commas, but for those in double quotes, which it removes.
func splitOptions(list string) []string {
	var out []string
	var word []byte // paths need not be UTF-8
	quoted := false
	for _, b := range []byte(list) {
		switch {
		case b == '"':
			quoted = !quoted
		case b == ',' && !quoted:
			out, word = append(out, string(word)), nil
		default:
			word = append(word, b)
		}
	}
	return append(out, string(word))
}
