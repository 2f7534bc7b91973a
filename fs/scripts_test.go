package fs

import (
	"strings"
	"testing"
)

// scripts are what a passing-through filesystem easily gets wrong. The plain filesystem is the judge.
func scripts() []map[string]string {
	return []map[string]string{accessScripts(), nameScripts(), dataScripts(), attrScripts()}
}

// fileCaps stands for a security.capability that gives nothing (version 2, no capabilities); see the actor's setxattr.
const fileCaps = "CAPS"

// throughOnly begins the name of a script that the write-back mode can't satisfy.
const throughOnly = "through: "

func TestScripts(t *testing.T) {
	needRoot(t)
	bothModes(t, func(t *testing.T, w *world) {
		users := cast(t)
		for _, table := range scripts() {
			for name, script := range table {
				if strings.HasPrefix(name, throughOnly) && w.cache != WriteThrough {
					continue
				}
				t.Run(name, func(t *testing.T) {
					same(t, w, users, strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), "/", ""), script)
				})
			}
		}
	})
}
