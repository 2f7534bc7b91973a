package snapshot

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of tags: their length in bytes, and how many a snapshot has.
const (
	maxTag  = 100
	maxTags = 100
)

// CheckTag returns an error that wraps ErrBadTag if a snapshot can't have the tag. Tags are for policies and lists, and mean nothing else.
func CheckTag(tag string) error {
	why := ""
	switch {
	case tag == "":
		why = "it is empty"
	case len(tag) > maxTag:
		why = fmt.Sprintf("it has %d bytes, at most %d are possible", len(tag), maxTag)
	case !utf8.ValidString(tag):
		why = "it is not UTF-8"
	case strings.ContainsFunc(tag, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) || r == ',' }):
		why = "it contains a space, a comma or a control character"
	case strings.HasPrefix(tag, "-"):
		why = "it begins with a dash, as options do"
	}
	if why != "" {
		return fmt.Errorf("%w %q: %s; choose another", ErrBadTag, tag, why)
	}
	return nil
}

// sortTags brings tags into the only order that they are stored in, each once.
func sortTags(tags []string) ([]string, error) {
	for _, tag := range tags {
		if err := CheckTag(tag); err != nil {
			return nil, err
		}
	}
	tags = slices.Compact(slices.Sorted(slices.Values(tags)))
	if len(tags) > maxTags {
		return nil, fmt.Errorf("%w: a snapshot has at most %d, not %d", ErrBadTag, maxTags, len(tags))
	}
	return tags, nil
}
