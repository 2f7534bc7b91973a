package graphmeta

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"
)

// maxDepth is how deep lists and objects can lie in each other.
const maxDepth = 100

// appendValue appends the canonical encoding of a value as parse gives it.
func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case bool:
		return fmt.Append(b, v)
	case json.Number:
		return append(b, v...)
	case string:
		return appendString(b, v)
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, e)
		}
		return append(b, ']')
	case map[string]any:
		b = append(b, '{')
		for i, key := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, key), ':')
			b = appendValue(b, v[key])
		}
		return append(b, '}')
	}
	panic(fmt.Sprintf("graphmeta: a %T in JSON", v))
}

// appendString writes what RFC 8785, section 3.2.2.2, says. encoding/json's escapes have changed with Go's releases, and these must not.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch r {
		case '"', '\\':
			b = append(b, '\\', byte(r))
		case '\b':
			b = append(b, `\b`...)
		case '\t':
			b = append(b, `\t`...)
		case '\n':
			b = append(b, `\n`...)
		case '\f':
			b = append(b, `\f`...)
		case '\r':
			b = append(b, `\r`...)
		default:
			if r < ' ' {
				b = fmt.Appendf(b, `\u%04x`, r)
			} else {
				b = utf8.AppendRune(b, r)
			}
		}
	}
	return append(b, '"')
}

// parse decodes one JSON value into nil, bool, json.Number, string, []any and map[string]any. It is stricter than encoding/json: no key comes twice, all text is UTF-8, nothing lies
// deeper than maxDepth.
func parse(p []byte) (any, error) {
	if len(p) > MaxLength {
		return nil, fmt.Errorf("it has more than %d bytes", MaxLength)
	}
	if !utf8.Valid(p) {
		return nil, errors.New("it is no UTF-8 text")
	}
	if len(bytes.TrimSpace(p)) == 0 {
		return nil, errors.New("it is empty")
	}
	// The decoder of tokens is lax at ends, and doesn't say where it was.
	var syntax *json.SyntaxError
	if err := json.Unmarshal(p, new(json.RawMessage)); errors.As(err, &syntax) {
		return nil, fmt.Errorf("line %d: %w", line(p, syntax.Offset), err)
	}
	d := &parser{dec: json.NewDecoder(bytes.NewReader(p))}
	d.dec.UseNumber()
	v, err := d.value(0)
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", line(p, d.dec.InputOffset()), err)
	}
	return v, nil
}

func line(p []byte, offset int64) int {
	return 1 + bytes.Count(p[:min(offset, int64(len(p)))], []byte("\n"))
}

type parser struct{ dec *json.Decoder }

func (d *parser) value(depth int) (any, error) {
	t, err := d.dec.Token()
	if err != nil {
		return nil, err
	}
	if _, nested := t.(json.Delim); nested && depth == maxDepth {
		return nil, fmt.Errorf("lists and objects lie more than %d deep in each other", maxDepth)
	}
	switch t {
	case json.Delim('['):
		return d.list(depth + 1)
	case json.Delim('{'):
		return d.object(depth + 1)
	}
	return t, nil
}

func (d *parser) list(depth int) (any, error) {
	out := []any{}
	for d.dec.More() {
		v, err := d.value(depth)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	_, err := d.dec.Token() // the end
	return out, err
}

func (d *parser) object(depth int) (any, error) {
	out := map[string]any{}
	for d.dec.More() {
		t, err := d.dec.Token()
		if err != nil {
			return nil, err
		}
		key := t.(string) // the decoder lets nothing else be a key
		if _, twice := out[key]; twice {
			return nil, fmt.Errorf("the key %q comes twice", key)
		}
		if out[key], err = d.value(depth); err != nil {
			return nil, err
		}
	}
	_, err := d.dec.Token() // the end
	return out, err
}
