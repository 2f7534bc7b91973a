package placement

import (
	"errors"
	"fmt"
	"strings"
)

// drop is written in place of a node or volume to leave something out. No node can have that name, and an unset variable of a shell isn't it.
const drop = "-"

// Volume is a volume of a node, by the label that it has there. With an empty Name it stands for all volumes of the node.
type Volume struct {
	Node string `json:"node"`
	Name string `json:"volume"`
}

func (v Volume) String() string {
	if v.Name == "" {
		return v.Node
	}
	return v.Node + ":" + v.Name
}

// Rule says where one node of a snapshot, or one volume of it, is restored to. The zero To leaves it out.
type Rule struct{ From, To Volume }

func (r Rule) String() string {
	if r.To == (Volume{}) {
		return r.From.String() + "=" + drop
	}
	return r.From.String() + "=" + r.To.String()
}

// ParseRule reads a rule as people write it:
//
//	old=new                  the node's volumes to those with the same labels of another node
//	old=-                    not at all
//	old:volume=new:volume    one volume, also to one with another label
//	old:volume=-
func ParseRule(text string) (Rule, error) {
	from, to, ok := strings.Cut(text, "=")
	r := Rule{From: parseVolume(from)}
	if to != drop {
		r.To = parseVolume(to)
	}
	var err error
	switch {
	case !ok || strings.Contains(to, "="):
		err = errors.New("write it as OLD=NEW, OLD=- or OLD:VOLUME=NEW:VOLUME; a volume that has = in its path needs a name")
	case r.From.Node == "" || strings.HasSuffix(from, ":"):
		err = errors.New("what is to be restored is missing before the =")
	case to != drop && (r.To.Node == "" || strings.HasSuffix(to, ":")):
		err = errors.New("where it is restored to is missing after the =; to leave it out write " + from + "=" + drop)
	case r.To.Node == drop:
		err = errors.New("to leave it out write " + from + "=" + drop)
	case to != drop && (r.From.Name == "") != (r.To.Name == ""):
		err = errors.New("a volume goes to a volume (OLD:VOLUME=NEW:VOLUME), and a node to a node (OLD=NEW)")
	}
	if err != nil {
		return Rule{}, fmt.Errorf("--map %s: %w", text, err)
	}
	return r, nil
}

// parseVolume splits at the first colon: nodes' names have none.
func parseVolume(text string) Volume {
	node, name, _ := strings.Cut(text, ":")
	return Volume{node, name}
}
