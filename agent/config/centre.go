package config

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"

	"graphvol/internal/durable"
)

// DefaultCluster is the cluster's name if the configuration has none.
const DefaultCluster = "graphvol"

// keptName is the file in the agent's state directory with the newest configuration of the centre that was in force: the node has its volumes also while etcd is away.
const keptName = "config.json"

// Central is a configuration of the centre, for one node or as the template of all.
type Central struct {
	Node     string // empty: of all that have none of their own
	Text     string // YAML; empty: there is none
	Revision int64  // etcd's, of its last change; 0: there never was one, and nodes run their own files
}

// WithCentre reads a configuration of the centre. What makes the node what it is comes from its own file.
func (c *File) WithCentre(text string) (*File, error) {
	f, err := Parse([]byte(text))
	if err != nil {
		return nil, err
	}
	if f.isNode() {
		return nil, errors.New("node and etcd belong into each node's own file: leave them out here")
	}
	if name := f.Cluster.Name; name != "" && name != cmp.Or(c.Cluster.Name, DefaultCluster) {
		return nil, fmt.Errorf("cluster: the name %s is another one than this cluster's: it belongs into each node's own file, leave it out here", name)
	}
	f.Node, f.Etcd, f.Cluster.Name = c.Node, c.Etcd, c.Cluster.Name
	return f, nil
}

// isNode tells whether the file says what a node is, as none of the centre does.
func (c *File) isNode() bool {
	return !reflect.ValueOf(c.Node).IsZero() || !reflect.ValueOf(c.Etcd).IsZero()
}

// InForce gives what an agent that is started with a node's own file runs: what it has kept of the centre, with its revision, or that file, and 0.
func (c *File) InForce() (*File, int64, error) {
	if !c.isNode() {
		return c, 0, nil
	}
	k, err := ReadKept(cmp.Or(c.Node.State, DefaultNodeState))
	if errors.Is(err, fs.ErrPermission) || err == nil && k.Revision == 0 {
		return c, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	f, err := c.WithCentre(k.Text)
	if err != nil {
		return nil, 0, fmt.Errorf("revision %d of the cluster's configuration, which was in force here: %w", k.Revision, err)
	}
	return f, k.Revision, nil
}

// Keep writes a configuration into the agent's state directory.
func (k Central) Keep(state string) error {
	p, err := json.Marshal(k)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(state, keptName), p); err != nil {
		return fmt.Errorf("the configuration can't be kept in the agent's state directory: %w", err)
	}
	return nil
}

// ReadKept gives the configuration that was kept last.
func ReadKept(state string) (k Central, err error) {
	path := filepath.Join(state, keptName)
	p, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err == nil {
		err = json.Unmarshal(p, &k)
	}
	if err != nil {
		return k, fmt.Errorf("the configuration of the centre that was in force here can't be read: %w; remove %s, and the agent takes it from etcd again", err, path)
	}
	return k, nil
}
