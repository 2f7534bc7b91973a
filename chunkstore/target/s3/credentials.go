package s3

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// credentials returns the provider of keys: the profile that was asked for and nothing else, or the first of
//
//   - AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN)
//   - MINIO_ROOT_USER and MINIO_ROOT_PASSWORD, MINIO_ACCESS_KEY and MINIO_SECRET_KEY
//   - the profile AWS_PROFILE, or default, of ~/.aws/credentials and ~/.aws/config (AWS_SHARED_CREDENTIALS_FILE, AWS_CONFIG_FILE)
//   - the role of the machine, container or web identity, unless AWS_EC2_METADATA_DISABLED is true
func (c Config) credentials() *credentials.Credentials {
	if c.Profile != "" {
		return credentials.New(&chain{tries: []credentials.Provider{&credentials.FileAWSCredentials{Profile: c.Profile}}})
	}
	tries := []credentials.Provider{&credentials.EnvAWS{}, &credentials.EnvMinio{}, &credentials.FileAWSCredentials{}}
	if os.Getenv("AWS_EC2_METADATA_DISABLED") != "true" {
		// Outside of clouds nobody answers.
		client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, Proxy: roleProxy}}
		tries = append(tries, &credentials.IAM{Client: client})
	}
	return credentials.New(&chain{tries: tries})
}

// roleProxy is http.ProxyFromEnvironment, except that a link-local address is this machine's, whoever asks for it.
func roleProxy(r *http.Request) (*url.URL, error) {
	if ip := net.ParseIP(r.URL.Hostname()); ip.IsLinkLocalUnicast() {
		return nil, nil
	}
	return http.ProxyFromEnvironment(r)
}

// chain takes the first provider that has keys. The library's own goes on without any, and forgets why.
type chain struct {
	tries []credentials.Provider
	used  credentials.Provider
}

var _ credentials.Provider = (*chain)(nil)

// credentialsError says that no provider has keys.
type credentialsError struct {
	causes error
	again  bool // one had, before those expired
}

func (e *credentialsError) Error() string {
	return fmt.Sprintf("no credentials (%v)", e.causes)
}

func (e *credentialsError) Unwrap() error { return e.causes }

func (c *chain) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	var causes []error
	for _, p := range c.tries {
		v, err := p.RetrieveWithCredContext(cc)
		if err == nil && v.AccessKeyID != "" && v.SecretAccessKey != "" {
			c.used = p
			return v, nil
		}
		if err != nil {
			causes = append(causes, err)
		}
	}
	if len(causes) == 0 {
		causes = append(causes, errors.New("none are set"))
	}
	return credentials.Value{}, &credentialsError{oneLine(causes), c.used != nil}
}

// oneLine joins errors with semicolons.
func oneLine(errs []error) error {
	err := errs[0]
	for _, e := range errs[1:] {
		err = fmt.Errorf("%w; %w", err, e)
	}
	return err
}

func (c *chain) Retrieve() (credentials.Value, error) {
	return c.RetrieveWithCredContext(&credentials.CredContext{Client: http.DefaultClient, Context: context.Background()})
}

func (c *chain) IsExpired() bool { return c.used == nil || c.used.IsExpired() }
