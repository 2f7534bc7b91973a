package agent

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"graphvol/chunkstore/target/dial"
	"graphvol/remote"
)

// Whether copies are encrypted. EncryptAuto: all but those in directories.
const (
	EncryptAuto = "auto"
	EncryptYes  = "yes"
	EncryptNo   = "no"
)

// CopyOptions say where copies of a store are: a whole one on each target, or one that is spread over all of them.
type CopyOptions struct {
	Targets []string `json:"targets"`           // URLs
	Erasure string   `json:"erasure,omitempty"` // "K+M": one copy, spread over all targets; empty: a copy on each
	Encrypt string   `json:"encrypt,omitempty"` // EncryptYes, EncryptNo or EncryptAuto; empty: EncryptAuto
}

// specs are the copies that the options ask for.
func (c CopyOptions) specs() (specs []remote.Spec) {
	encrypt := func(urls ...string) bool {
		away := slices.ContainsFunc(urls, func(url string) bool { return !strings.HasPrefix(url, "dir:") })
		return c.Encrypt == EncryptYes || c.Encrypt != EncryptNo && away
	}
	if c.Erasure != "" {
		return []remote.Spec{{URLs: c.Targets, Erasure: c.Erasure, Encrypt: encrypt(c.Targets...)}}
	}
	for _, url := range c.Targets {
		specs = append(specs, remote.Spec{URLs: []string{url}, Encrypt: encrypt(url)})
	}
	return specs
}

// check refuses what can't be right.
func (c CopyOptions) check() error {
	if c.Encrypt != "" && c.Encrypt != EncryptAuto && c.Encrypt != EncryptYes && c.Encrypt != EncryptNo {
		return refuse(codes.InvalidArgument, fmt.Sprintf("there is no way %q to encrypt: choose %s, %s or %s", c.Encrypt, EncryptAuto, EncryptYes, EncryptNo))
	}
	if c.Erasure != "" {
		if err := remote.CheckErasure(c.Erasure, len(c.Targets)); err != nil {
			return refuse(codes.InvalidArgument, err.Error())
		}
	}
	for _, url := range c.Targets {
		if err := dial.Check(url); err != nil {
			return refuse(codes.InvalidArgument, err.Error())
		}
	}
	return nil
}

// checkCopies refuses what can't be right, also together.
func checkCopies(all []CopyOptions) error {
	seen := make(map[string]bool)
	for _, c := range all {
		if err := c.check(); err != nil {
			return err
		}
		for _, url := range c.Targets {
			if seen[url] {
				return refuse(codes.InvalidArgument, fmt.Sprintf("the target %s is named twice", url))
			}
			seen[url] = true
		}
	}
	return nil
}

// specsOf are the copies that several options ask for.
func specsOf(all []CopyOptions) (specs []remote.Spec) {
	for _, c := range all {
		specs = append(specs, c.specs()...)
	}
	return specs
}
