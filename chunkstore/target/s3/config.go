package s3

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/s3utils"

	"graphvol/chunkstore/target"
)

// Config says where a bucket is, and who asks.
type Config struct {
	Bucket   string
	Prefix   string        // of the objects' names, like a name itself; empty: the bucket is the target's alone
	Endpoint string        // host or host:port, after https:// or http:// or nothing, which means https; empty: Amazon's
	Insecure bool          // allows http://
	Region   string        // empty: AWS_REGION, AWS_DEFAULT_REGION, what Amazon says, us-east-1 elsewhere
	Style    string        // "path": URLs are endpoint/bucket; "host": bucket.endpoint; empty: as is usual at the endpoint
	Profile  string        // section of ~/.aws/credentials or ~/.aws/config; empty: see credentials
	Stall    time.Duration // how long a request may go without a byte in either direction; 0: two minutes
}

// place is a checked Config.
type place struct {
	host   string
	secure bool
	region string
	lookup minio.BucketLookupType
}

// Check returns an error if no bucket can be opened with this, whatever the world is like.
func (c Config) Check() error {
	_, err := c.check()
	return err
}

func (c Config) check() (place, error) {
	if err := s3utils.CheckValidBucketNameStrict(c.Bucket); err != nil {
		return place{}, err
	}
	if c.Prefix != "" {
		if err := target.CheckName(c.Prefix); err != nil {
			return place{}, fmt.Errorf("the prefix must be like an object's name: %w", err)
		}
	}
	p := place{host: "s3.amazonaws.com", secure: true}
	if c.Endpoint != "" {
		var err error
		if p.host, p.secure, err = c.endpoint(); err != nil {
			return place{}, err
		}
	}
	switch c.Style {
	case "":
	case "path":
		p.lookup = minio.BucketLookupPath
	case "host":
		p.lookup = minio.BucketLookupDNS
	default:
		return place{}, fmt.Errorf("style %q: there are path and host", c.Style)
	}
	p.region = firstOf(c.Region, os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"))
	if p.region == "" && !s3utils.IsAmazonEndpoint(url.URL{Host: p.host}) {
		p.region = "us-east-1" // what most servers take, and no request to ask for it
	}
	return p, nil
}

func (c Config) endpoint() (host string, secure bool, err error) {
	scheme, rest, ok := strings.Cut(c.Endpoint, "://")
	if !ok {
		scheme, rest = "https", c.Endpoint
	}
	switch {
	case scheme != "http" && scheme != "https":
		return "", false, errors.New("the endpoint must begin with https:// or http://")
	case strings.Contains(rest, "@"):
		return "", false, errors.New("credentials don't belong into the endpoint; put them into ~/.aws/credentials or the environment")
	case scheme == "http" && !c.Insecure:
		return "", false, fmt.Errorf("endpoint %s: data and listings would cross the network in the clear; use https, or allow it with insecure=1", c.Endpoint)
	case scheme == "https" && c.Insecure:
		return "", false, fmt.Errorf("insecure=1 allows http, but endpoint %s is https; write http://%s or leave out insecure", c.Endpoint, rest)
	}
	u, err := url.Parse(scheme + "://" + strings.TrimSuffix(rest, "/"))
	if err != nil || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", false, fmt.Errorf("endpoint %q: it is a host, or host:port, with https:// or http:// before it", c.Endpoint)
	}
	return u.Host, scheme == "https", nil
}

func firstOf(all ...string) string {
	for _, s := range all {
		if s != "" {
			return s
		}
	}
	return ""
}
