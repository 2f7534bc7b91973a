package crypt

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestGoldenRecovery(t *testing.T) {
	checkGolden(t, "recovery.golden", goldenKeyFile(t).Recovery())
}

// TestRecoveryTyped reads the text as people type it.
func TestRecoveryTyped(t *testing.T) {
	k := goldenKeyFile(t)
	text := k.Recovery()
	data := text[strings.Index(text, "VERSION:"):]
	for what, typed := range map[string]string{
		"as it is": text, "without the words": data, "small letters": strings.ToLower(text),
		"one line": strings.ReplaceAll(text, "\n", " "), "no spaces": strings.ReplaceAll(data, " ", ""),
		"one group a line": strings.ReplaceAll(data, " ", "\n"), "quoted": "> " + strings.ReplaceAll(text, "\n", "\r\n> "),
		"O for 0, l for 1": strings.NewReplacer("0", "O", "1", "l").Replace(data), "no dashes": strings.ReplaceAll(data, "-", ""),
	} {
		got, err := ParseRecovery(typed)
		if err != nil || got.Pin != k.Pin || got.Identity.String() != k.Identity.String() {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestRecoveryTypos changes each character of the text's lines: the line is named.
func TestRecoveryTypos(t *testing.T) {
	text := goldenKeyFile(t).Recovery()
	start := strings.Index(text, "VERSION:")
	label := ""
	for i := start; i < len(text); i++ {
		if text[i-1] == '\n' {
			label = text[i : i+strings.IndexByte(text[i:], ':')]
		}
		if c := text[i]; c == ' ' || c == '-' || c == '\n' {
			continue
		}
		for _, c := range []byte("27XE") {
			if text[i] == c {
				continue
			}
			_, err := ParseRecovery(text[:i] + string(c) + text[i+1:])
			if err == nil || !strings.Contains(err.Error(), "line "+label) {
				t.Errorf("%q for %q at %d: %v, want one that names %s", c, text[i], i-start, err, label)
			}
		}
	}
}

func TestBadRecovery(t *testing.T) {
	text := goldenKeyFile(t).Recovery()
	lines := strings.SplitAfter(text[strings.Index(text, "VERSION:"):], "\n")
	for i, line := range lines[:len(lines)-1] {
		label := "line " + line[:strings.IndexByte(line, ':')]
		without := strings.Join(slices.Delete(slices.Clone(lines), i, i+1), "")
		if _, err := ParseRecovery(without); err == nil || !strings.Contains(err.Error(), label+" is missing") {
			t.Errorf("without %s: %v", label, err)
		}
		if _, err := ParseRecovery(text + line); err == nil || !strings.Contains(err.Error(), label+" is there twice") {
			t.Errorf("twice %s: %v", label, err)
		}
	}
	other, err := NewKeyFile(newRing(t))
	if err != nil {
		t.Fatal(err)
	}
	theirs := strings.SplitAfter(other.Recovery(), "\n")
	lines[3] = theirs[len(theirs)-len(lines)+3]
	if _, err := ParseRecovery(strings.Join(lines, "")); err == nil || !strings.Contains(err.Error(), "belong together") {
		t.Errorf("a line of another text: %v", err)
	}
	if _, err := ParseRecovery("VERSION: 2 " + recoveryCheck("VERSION", "2")); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("%v, want ErrNewerFormat", err)
	}
	if _, err := ParseRecovery(strings.Repeat("x", maxKeyFile+1)); err == nil {
		t.Error("a long one was accepted")
	}
}

// FuzzRecovery fuzzes the text, and what its lines hold when their checksums are right.
func FuzzRecovery(f *testing.F) {
	k := goldenKeyFile(f)
	lines := k.recoveryLines()
	f.Add(k.Recovery(), lines["VERSION"], lines["STORE"], lines["NUMBER"], lines["COMMIT"], lines["KEYA"], lines["KEYB"], lines["KEYC"])
	f.Fuzz(func(t *testing.T, text, version, store, number, commit, a, b, c string) {
		if k, err := ParseRecovery(text); err == nil {
			checkRecovery(t, k)
		}
		lines := map[string]string{"VERSION": version, "STORE": store, "NUMBER": number, "COMMIT": commit, "KEYA": a, "KEYB": b, "KEYC": c}
		lines["SUM"] = recoverySum(lines)
		typed := ""
		for label, groups := range lines {
			typed += label + ":" + groups + recoveryCheck(label, groups) + "\n"
		}
		if k, err := ParseRecovery(typed); err == nil {
			checkRecovery(t, k)
		}
	})
}

func checkRecovery(t *testing.T, k *KeyFile) {
	if again, err := ParseRecovery(k.Recovery()); err != nil || again.Pin != k.Pin || again.Identity.String() != k.Identity.String() {
		t.Errorf("it isn't read as it was written: %v", err)
	}
}
