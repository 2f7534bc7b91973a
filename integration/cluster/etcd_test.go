package cluster

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"golang.org/x/sys/unix"

	"graphvol/agent/config"
	"graphvol/integration/rig"
)

// etcdVariable has a process of the test be a member of an etcd: a memberOptions as JSON.
const etcdVariable = "GRAPHVOL_TEST_ETCD"

// memberOptions say what a member is.
type memberOptions struct {
	Name, Dir    string
	Client, Peer string // URLs
	Members      string // NAME=PEER,…
	TLS          config.TLS
}

// beEtcd is the main function of a member. It prints a line when it serves, and ends with its standard input.
func beEtcd(text string) int {
	var o memberOptions
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.InitialCluster = o.Name, o.Dir, o.Members
	cfg.ClientTLSInfo = transport.TLSInfo{TrustedCAFile: o.TLS.CA, CertFile: o.TLS.Cert, KeyFile: o.TLS.Key, ClientCertAuth: true}
	cfg.LogLevel, cfg.LogOutputs = "error", []string{o.Dir + ".log"}
	client, err := url.Parse(o.Client)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	peer, err := url.Parse(o.Peer)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	<-e.Server.ReadyNotify()
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// etcd is one that agents find there: three members, each with a host and a certificate of its own, by another CA than the agents'.
type etcd struct {
	testing.TB
	members []memberOptions
	running []*exec.Cmd
	lives   []io.Closer // standard inputs
}

// newEtcd makes an etcd, and starts it.
func newEtcd(t testing.TB) *etcd {
	t.Helper()
	bin, err := rig.Agent()
	if err != nil {
		t.Fatal(err)
	}
	certs, dir := filepath.Join(t.TempDir(), "certs"), t.TempDir()
	cert := func(args ...string) {
		t.Helper()
		if _, err := run(t.Context(), bin, append([]string{"cert"}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	cert("ca", certs)
	cert("node", certs, "agents", "--host", "127.0.0.1")
	e := &etcd{TB: t}
	var all []string
	for i := range 3 {
		o := memberOptions{Name: fmt.Sprintf("m%d", i), Dir: filepath.Join(dir, fmt.Sprintf("m%d", i))}
		host := fmt.Sprintf("127.0.0.%d", i+1)
		o.Client, o.Peer = fmt.Sprintf("https://%s:%d", host, freePort(t)), fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
		cert("node", certs, o.Name, "--host", host)
		o.TLS = tlsFiles(certs, o.Name)
		all = append(all, o.Name+"="+o.Peer)
		e.members = append(e.members, o)
	}
	for i := range e.members {
		e.members[i].Members = strings.Join(all, ",")
	}
	e.running, e.lives = make([]*exec.Cmd, 3), make([]io.Closer, 3)
	t.Cleanup(func() { e.kill(0, 1, 2) })
	e.start()
	return e
}

func freePort(t testing.TB) int {
	t.Helper()
	p, err := Loopback().Port(0)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tlsFiles(certs, name string) config.TLS {
	return config.TLS{CA: certs + "/ca.crt", Cert: certs + "/" + name + ".crt", Key: certs + "/" + name + ".key"}
}

// urls are what agents are given.
func (e *etcd) urls() (all []string) {
	for _, m := range e.members {
		all = append(all, m.Client)
	}
	return all
}

// config is what agents need to know beside the URLs.
func (e *etcd) config(*Node) (string, error) {
	f := tlsFiles(filepath.Dir(e.members[0].TLS.CA), "agents")
	return fmt.Sprintf("etcd:\n  tls: {ca: %s, cert: %s, key: %s}\n", f.CA, f.Cert, f.Key), nil
}

// start starts the members that don't run, and waits until they serve.
func (e *etcd) start() {
	e.Helper()
	self, err := os.Executable()
	if err != nil {
		e.Fatal(err)
	}
	var all sync.WaitGroup
	for i, m := range e.members {
		if e.running[i] != nil {
			continue
		}
		text, err := json.Marshal(m)
		if err != nil {
			e.Fatal(err)
		}
		cmd := exec.Command(self)
		cmd.Env, cmd.Stderr = append(os.Environ(), etcdVariable+"="+string(text)), os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			e.Fatal(err)
		}
		if e.lives[i], err = cmd.StdinPipe(); err != nil {
			e.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			e.Fatal(err)
		}
		e.running[i] = cmd
		all.Go(func() {
			if _, err := out.Read(make([]byte, 16)); err != nil {
				e.Errorf("member %s of etcd doesn't serve: %v", m.Name, err)
			}
		})
	}
	all.Wait()
}

// signal sends a signal to all members that run.
func (e *etcd) signal(sig unix.Signal) {
	e.Helper()
	for _, cmd := range e.running {
		if cmd == nil {
			continue
		}
		if err := cmd.Process.Signal(sig); err != nil {
			e.Fatal(err)
		}
	}
}

// kill ends members with SIGKILL.
func (e *etcd) kill(which ...int) {
	for _, i := range which {
		if cmd := e.running[i]; cmd != nil {
			_ = cmd.Process.Kill() // it may have ended
			_ = cmd.Wait()         // whose error is that it was killed
			e.running[i] = nil
		}
	}
}
