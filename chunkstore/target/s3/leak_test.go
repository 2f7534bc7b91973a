package s3_test

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if err := trustTestServers(); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.Remove(os.Getenv("SSL_CERT_FILE"))
		os.Exit(code)
	}))
}

// trustTestServers makes the certificate of httptest's servers the only one that this process trusts; it looks once.
func trustTestServers() error {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	f, err := os.CreateTemp("", "graphvol-cert-")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := pem.Encode(f, &pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}); err != nil {
		return err
	}
	return os.Setenv("SSL_CERT_FILE", f.Name())
}
