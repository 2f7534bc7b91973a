package graphmeta

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// maxName is the greatest length of a name, a partition's id, or the version, in bytes.
const maxName = 1 << 10

// Decode reads the JSON of a graph, and puts its lists into their canonical order. Errors are one line that says what is wrong with it, and where.
func Decode(p []byte) (*Meta, error) {
	v, err := parse(p)
	if err != nil {
		return nil, err
	}
	all, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("it is %s, and must be a JSON object", kind(v))
	}
	m := &Meta{extra: all}
	for _, read := range []func(*Meta, map[string]any) error{readVersion, readTypes, readPartitions, readInProgress, checkKeys} {
		if err := read(m, all); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// take removes a known key from the rest; nil if it isn't there.
func take(all map[string]any, key string) any {
	v := all[key]
	delete(all, key)
	return v
}

func readVersion(m *Meta, all map[string]any) (err error) {
	v, ok := all[keyVersion]
	if !ok {
		return errors.New("version is missing: it must be a text that changes whenever types or partitions do")
	}
	delete(all, keyVersion)
	m.Version, err = text(keyVersion, v)
	return err
}

func readTypes(m *Meta, all map[string]any) (err error) {
	if m.VertexTypes, err = types(keyVertexTypes, take(all, keyVertexTypes)); err == nil {
		m.EdgeTypes, err = types(keyEdgeTypes, take(all, keyEdgeTypes))
	}
	return err
}

func readInProgress(m *Meta, all map[string]any) error {
	v := take(all, keyInProgress)
	s, ok := v.(string)
	if v != nil && !ok {
		return fmt.Errorf("%s is %s, and must be a text: what is changing the graph, or nothing", keyInProgress, kind(v))
	}
	m.InProgress = strings.TrimSpace(s)
	return nil
}

// checkKeys refuses keys that are known ones, written wrongly: they would count as something else, unnoticed.
func checkKeys(_ *Meta, all map[string]any) error {
	plain := strings.NewReplacer("_", "", "-", "", " ", "")
	for _, key := range slices.Sorted(maps.Keys(all)) {
		for _, known := range []string{keyVersion, keyVertexTypes, keyEdgeTypes, keyPartitions, keyInProgress} {
			if strings.EqualFold(plain.Replace(key), plain.Replace(known)) {
				return fmt.Errorf("the key %q must be written %q", key, known)
			}
		}
	}
	return nil
}

func types(key string, v any) ([]Type, error) {
	list, ok := v.([]any)
	if v != nil && !ok {
		return nil, fmt.Errorf("%s is %s, and must be a list", key, kind(v))
	}
	var out []Type
	for i, e := range list {
		place := fmt.Sprintf("%s, element %d", key, i+1)
		var t Type
		if object, ok := e.(map[string]any); ok {
			e = take(object, keyName)
			place += ", name"
			t.extra = object
		}
		var err error
		if t.Name, err = text(place, e); err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	slices.SortFunc(out, byName)
	for i := 1; i < len(out); i++ {
		if out[i].Name == out[i-1].Name {
			return nil, fmt.Errorf("%s has %q twice", key, out[i].Name)
		}
	}
	return out, nil
}

func readPartitions(m *Meta, all map[string]any) error {
	v := take(all, keyPartitions)
	parts, ok := v.(map[string]any)
	if v != nil && !ok {
		return fmt.Errorf("%s is %s, and must be an object, as {\"1\": [\"node1\", \"node2\"]}", keyPartitions, kind(v))
	}
	if len(parts) > 0 {
		m.Partitions = make(map[string][]string, len(parts))
	}
	for _, id := range slices.Sorted(maps.Keys(parts)) {
		if _, err := text("a partition's id", id); err != nil {
			return err
		}
		nodes, err := nodes(id, parts[id])
		if err != nil {
			return err
		}
		m.Partitions[id] = nodes
	}
	return nil
}

// nodes reads the nodes of a partition. One that no node has would be missing in a snapshot.
func nodes(id string, v any) ([]string, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("partition %s is %s, and must be the list of its nodes", id, kind(v))
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("partition %s is on no node", id)
	}
	var out []string
	for i, e := range list {
		name, err := text(fmt.Sprintf("partition %s, node %d", id, i+1), e)
		if err != nil {
			return nil, err
		}
		out = append(out, name)
	}
	slices.Sort(out)
	for i := 1; i < len(out); i++ {
		if out[i] == out[i-1] {
			return nil, fmt.Errorf("partition %s has node %q twice", id, out[i])
		}
	}
	return out, nil
}

// text is a value that has to be a name of some kind. It goes into messages and keys, so it is one line.
func text(place string, v any) (string, error) {
	s, ok := v.(string)
	switch {
	case !ok:
		return "", fmt.Errorf("%s is %s, and must be a text, as \"17\"", place, kind(v))
	case s == "":
		return "", fmt.Errorf("%s is empty", place)
	case len(s) > maxName:
		return "", fmt.Errorf("%s has more than %d bytes", place, maxName)
	case strings.ContainsFunc(s, unicode.IsControl):
		return "", fmt.Errorf("%s has a control character: %q", place, shorten(s))
	}
	return s, nil
}

func kind(v any) string {
	switch v.(type) {
	case nil:
		return "missing"
	case bool:
		return "true or false"
	case string:
		return "a text"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	default:
		return "a number"
	}
}

// shorten makes a text fit into a line.
func shorten(s string) string {
	const most = 200
	line := []rune(strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " "))
	if len(line) > most {
		return string(line[:most]) + "…"
	}
	return string(line)
}
