package agent

import (
	"fmt"

	"google.golang.org/grpc/codes"

	"graphvol/agent/config"
	"graphvol/chunkstore/limit"
)

// Configured gives the options with which the configuration has a volume mounted. Its errors say what in the configuration can't be right.
func Configured(v *config.Volume) (o MountOptions, err error) {
	o = MountOptions{
		Backing: v.Backing, Mount: v.Mount, State: v.State, Cache: v.Cache, SnapDir: v.SnapDir,
		AllowSuid: v.AllowSuid, AllowDev: v.AllowDev, NoExec: v.NoExec, AllowOther: !v.Private,
		SnapshotTimeout: v.Snapshot.Timeout, MaxConcurrent: v.Snapshot.MaxConcurrent,
		HangTimeout: orDefault(v.HangTimeout, DefaultHangTimeout), SettleAfter: orDefault(v.Snapshot.SettleAfter, DefaultSettleAfter),
		ScrubEvery: orDefault(v.Scrub.Every, DefaultScrubEvery), ScrubLimit: DefaultScrubLimit,
	}
	for _, c := range v.Copies {
		o.Copies = append(o.Copies, CopyOptions(c))
	}
	if v.LogLevel != "" && o.LogLevel.UnmarshalText([]byte(v.LogLevel)) != nil {
		err = fmt.Errorf("there is no log level %q: choose debug, info, warn or error", v.LogLevel)
	}
	if err == nil && v.UploadLimit != "" {
		o.UploadLimit, err = limit.ParseRate(v.UploadLimit)
	}
	if err == nil && v.Scrub.Limit != "" {
		o.ScrubLimit, err = limit.ParseRate(v.Scrub.Limit)
	}
	if err == nil {
		err = o.CheckFlags()
	}
	if err != nil {
		err = refuse(codes.InvalidArgument, fmt.Sprintf("the configuration of the volume %s: %s", v.Backing, Message(err)))
	}
	return o, err
}

func orDefault[T any](given *T, def T) T {
	if given == nil {
		return def
	}
	return *given
}
