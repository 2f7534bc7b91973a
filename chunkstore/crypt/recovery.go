package crypt

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	recoveryVersion = 1
	recoveryWords   = `GRAPHVOL RECOVERY TEXT

With this text and a copy of the store, the store can be read although all else is lost. Without the text, and without
another key, nobody can read it. Whoever has the text can read every copy that he can get at. Keep it on paper,
away from the machine.

To type it in, begin at VERSION. Spaces, line breaks and capital letters don't matter. The last group of a line is the line's
own checksum, SUM is that of all.

`
	// identityHead is how secret keys of age begin, without dashes; identityLen is how many characters follow.
	identityHead = "AGESECRETKEY1"
	identityLen  = 58
	checkLen     = 4
)

// recoveryLabels are the lines of a recovery text.
var recoveryLabels = []string{"VERSION", "STORE", "NUMBER", "COMMIT", "KEYA", "KEYB", "KEYC", "SUM"}

var recoveryLabel = regexp.MustCompile(`(?i)\b(` + strings.Join(recoveryLabels, "|") + `)\s*:`)

// Recovery returns the key file as text for paper. A line is
//
//	LABEL: GROUPS CHECK
//
// GROUPS are VERSION: the text's version, 1; STORE: the store id; NUMBER and COMMIT: number of the repository key and the commitment to it;
// KEYA, KEYB, KEYC: the identity AGE-SECRET-KEY-1…, in three parts. CHECK is the beginning of SHA-256("graphvol recovery ", LABEL, ":", GROUPS), in 4 hexadecimal digits, where GROUPS are
// without spaces and dashes, in upper case. SUM's groups are the beginning, in 16 digits, of the same hash over "SUM", ":" and all lines before, each as LABEL:GROUPS and a line feed.
func (k *KeyFile) Recovery() string {
	var b strings.Builder
	b.WriteString(recoveryWords)
	lines := k.recoveryLines()
	for _, label := range recoveryLabels {
		groups := lines[label]
		shown, rest := "", groups
		if label == "KEYA" {
			shown, rest = "AGE-SECRET-KEY-1 ", groups[len(identityHead):]
		}
		for part := range slices.Chunk([]byte(rest), 4) {
			shown += string(part) + " "
		}
		fmt.Fprintf(&b, "%-8s %-60s %s\n", label+":", shown, recoveryCheck(label, groups))
	}
	return b.String()
}

func (k *KeyFile) recoveryLines() map[string]string {
	id := strings.ReplaceAll(k.Identity.String(), "-", "")
	data := id[len(identityHead):]
	lines := map[string]string{
		"VERSION": strconv.Itoa(recoveryVersion),
		"STORE":   strings.ToUpper(k.Pin.Store),
		"NUMBER":  strconv.FormatUint(uint64(k.Pin.Number), 10),
		"COMMIT":  fmt.Sprintf("%X", k.Pin.Commitment),
		"KEYA":    identityHead + data[:20],
		"KEYB":    data[20:40],
		"KEYC":    data[40:],
	}
	lines["SUM"] = recoverySum(lines)
	return lines
}

func recoveryHash(label, groups string) string {
	h := sha256.Sum256([]byte("graphvol recovery " + label + ":" + groups))
	return strings.ToUpper(hex.EncodeToString(h[:]))
}

func recoveryCheck(label, groups string) string { return recoveryHash(label, groups)[:checkLen] }

func recoverySum(lines map[string]string) string {
	all := ""
	for _, label := range recoveryLabels {
		if label != "SUM" {
			all += label + ":" + lines[label] + "\n"
		}
	}
	return recoveryHash("SUM", all)[:16]
}

// ParseRecovery reads a recovery text as somebody typed it. What stands before its first line is of no matter, nor are spaces, dashes, line breaks, case, and
// O for 0, I or L for 1 where there are only digits. An error names the line that is wrong, but repeats nothing of it.
func ParseRecovery(text string) (*KeyFile, error) {
	if len(text) > maxKeyFile {
		return nil, errors.New("recovery text: it is too long")
	}
	lines, bad, err := splitRecovery(text)
	if err != nil {
		return nil, err
	}
	if v, ok := lines["VERSION"]; ok && !bad["VERSION"] {
		if n, err := strconv.Atoi(v); err == nil && n > recoveryVersion {
			return nil, fmt.Errorf("recovery text of version %d: %w", n, ErrNewerFormat)
		}
	}
	for _, label := range recoveryLabels {
		if _, ok := lines[label]; !ok {
			return nil, fmt.Errorf("recovery text: line %s is missing", label)
		}
	}
	for _, label := range recoveryLabels {
		if bad[label] {
			return nil, fmt.Errorf("recovery text: there is a typing error in line %s", label)
		}
	}
	if recoverySum(lines) != lines["SUM"] {
		return nil, errors.New("recovery text: the lines don't belong together, or one of them is wrong")
	}
	return recovered(lines)
}

// splitRecovery returns the groups of each line, and those whose checksum is wrong.
func splitRecovery(text string) (lines map[string]string, bad map[string]bool, err error) {
	lines, bad = make(map[string]string), make(map[string]bool)
	found := recoveryLabel.FindAllStringSubmatchIndex(text, -1)
	for i, at := range found {
		label, end := strings.ToUpper(text[at[2]:at[3]]), len(text)
		if i+1 < len(found) {
			end = found[i+1][0]
		}
		if _, ok := lines[label]; ok {
			return nil, nil, fmt.Errorf("recovery text: line %s is there twice", label)
		}
		groups := bare(text[at[1]:end])
		check := ""
		if cut := len(groups) - checkLen; cut >= 0 {
			groups, check = groups[:cut], asDigits(groups[cut:])
		}
		groups = asPrinted(label, groups)
		lines[label], bad[label] = groups, recoveryCheck(label, groups) != check
	}
	return lines, bad, nil
}

// bare leaves only letters and digits, in upper case.
func bare(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z':
			return c
		case c >= 'a' && c <= 'z':
			return c - 'a' + 'A'
		}
		return -1
	}, s)
}

var (
	toDigits = strings.NewReplacer("O", "0", "I", "1", "L", "1")
	toBech32 = strings.NewReplacer("O", "0", "I", "L", "1", "L") // age's alphabet has 0 and L, but no 1, I and O
)

func asDigits(s string) string { return toDigits.Replace(s) }

// asPrinted undoes what is mistaken easily.
func asPrinted(label, groups string) string {
	switch label {
	case "KEYA":
		const n = len(identityHead)
		if len(groups) < n {
			return groups
		}
		return groups[:n-1] + asDigits(groups[n-1:n]) + toBech32.Replace(groups[n:])
	case "KEYB", "KEYC":
		return toBech32.Replace(groups)
	}
	return asDigits(groups)
}

func recovered(lines map[string]string) (*KeyFile, error) {
	if lines["VERSION"] != strconv.Itoa(recoveryVersion) {
		return nil, errors.New("recovery text: bad VERSION")
	}
	k := &KeyFile{}
	if k.Pin.Store = strings.ToLower(lines["STORE"]); !validStoreID(k.Pin.Store) {
		return nil, errors.New("recovery text: bad STORE")
	}
	if err := k.Pin.parseCommitment(lines["NUMBER"], lines["COMMIT"]); err != nil {
		return nil, fmt.Errorf("recovery text: %w", err)
	}
	data, ok := strings.CutPrefix(lines["KEYA"]+lines["KEYB"]+lines["KEYC"], identityHead)
	if !ok || len(data) != identityLen {
		return nil, errors.New("recovery text: bad length of KEYA, KEYB or KEYC")
	}
	var err error
	if k.Identity, err = parseIdentity("AGE-SECRET-KEY-1" + data); err != nil {
		return nil, fmt.Errorf("recovery text: KEYA, KEYB, KEYC: %w", err)
	}
	return k, nil
}
