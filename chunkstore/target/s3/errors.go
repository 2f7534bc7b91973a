package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/minio/minio-go/v7"

	"graphvol/chunkstore/target"
)

// failed says what failed with which object, of what kind the error is, and what can be done about it. name may be empty.
func (b *Bucket) failed(ctx context.Context, what, name string, err error) error {
	if name != "" {
		what += " " + name
	}
	what += " in " + b.String()
	if cerr := ctx.Err(); errors.Is(cerr, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w: %w", what, target.ErrUnavailable, cerr)
	} else if cerr != nil {
		return fmt.Errorf("%s: %w", what, cerr)
	}
	hint, class := b.classify(err)
	if hint != "" {
		hint = "; " + hint
	}
	detail := describe(err)
	if class == nil {
		return fmt.Errorf("%s: %w%s", what, detail, hint)
	}
	return fmt.Errorf("%s: %w: %w%s", what, class, detail, hint)
}

// described is an error with the server's word for it, by which people search.
type described struct {
	text string
	err  error
}

func (d *described) Error() string { return d.text }
func (d *described) Unwrap() error { return d.err }

func describe(err error) error {
	var r minio.ErrorResponse
	if errors.As(err, &r) && r.Code != "" {
		text := strings.TrimSuffix(printable(r.Error()), ".")
		if code := printable(r.Code); !strings.Contains(text, code) {
			text = code + ": " + text
		}
		return &described{text, err}
	}
	var u *url.Error
	switch {
	case !errors.As(err, &u):
		return err
	case strings.HasPrefix(u.Err.Error(), "Connection closed by foreign host"): // the library's word for io.EOF
		return &described{"the server closed the connection", err}
	}
	return &described{u.Err.Error(), err}
}

// printable makes one line of what a server says.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) && !unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s[:min(len(s), 500)])
	return strings.Join(strings.Fields(s), " ")
}

func codeOf(err error) string {
	var r minio.ErrorResponse
	errors.As(err, &r)
	return r.Code
}

// classify returns what to do, and the error of package target that err is: nil for one of the medium.
func (b *Bucket) classify(err error) (hint string, class error) {
	var noKeys *credentialsError
	if errors.As(err, &noKeys) && noKeys.again {
		return "there were credentials before", target.ErrUnavailable
	} else if noKeys != nil {
		return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write a profile into ~/.aws/credentials (aws configure)", target.ErrDenied
	}
	var r minio.ErrorResponse
	if !errors.As(err, &r) {
		return b.networkHint(err), target.ErrUnavailable
	}
	if hint, class := b.byCode(r); class != nil {
		return hint, class
	}
	switch s := r.StatusCode; {
	case noRoom(r):
		return "make room, or raise the quota", nil
	case s == http.StatusRequestTimeout, s == http.StatusConflict, s == http.StatusTooManyRequests, s == 499, s >= 500:
		return "", target.ErrUnavailable
	}
	// What else a server says is about the request. That what it stores is damaged it never says.
	return "", target.ErrDenied
}

// byCode knows the codes that say more than the status of the answer, which those within an answer (200) don't have.
func (b *Bucket) byCode(r minio.ErrorResponse) (hint string, class error) {
	switch r.Code {
	case "NoSuchKey":
		if r.XMLName.Local == "" { // a 404 without S3's document; the library takes it for this code
			return "this answer isn't one of an S3 server; is there something else at the endpoint, or a proxy before it?", target.ErrUnavailable
		}
		return "", fs.ErrNotExist
	case "SlowDown", "SlowDownRead", "SlowDownWrite", "InternalError", "ServiceUnavailable", "Throttling", "ThrottlingException", "RequestLimitExceeded",
		"RequestTimeout", "OperationAborted", "ConditionalRequestConflict", "InvalidPart":
		return "", target.ErrUnavailable
	case "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody":
		return "the bytes were damaged on the way", target.ErrUnavailable
	case "NoSuchUpload":
		return "somebody else has finished or aborted this upload", target.ErrUnavailable
	case "NoSuchBucket":
		return fmt.Sprintf("check its name and the endpoint, or create it: aws s3 mb s3://%s%s", b.bucket, b.endpointOption()), target.ErrDenied
	case "AccessDenied", "AllAccessDisabled", "AccountProblem":
		return "the key needs the rights listed in docs/targets.md on bucket " + b.bucket, target.ErrDenied
	case "InvalidAccessKeyId", "XAdminUserNotFound", "InvalidToken", "ExpiredToken":
		return "check access key and session token", target.ErrDenied
	case "SignatureDoesNotMatch":
		return "check the secret key, and the region", target.ErrDenied
	case "RequestTimeTooSkewed":
		return "set this machine's clock", target.ErrDenied
	case "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "InvalidRegion", "IllegalLocationConstraintException":
		if r.Region != "" {
			return "write region=" + r.Region, target.ErrDenied
		}
		return "check endpoint= and region=", target.ErrDenied
	case "NotImplemented", "MethodNotAllowed":
		return "this server doesn't know what was asked for", target.ErrDenied
	case "InvalidObjectState":
		return "the object is archived; restore it to a storage class that can be read", target.ErrDenied
	}
	return "", nil
}

func noRoom(r minio.ErrorResponse) bool {
	return r.StatusCode == http.StatusInsufficientStorage || strings.Contains(r.Code, "Quota") || strings.Contains(r.Code, "StorageFull")
}

func (b *Bucket) endpointOption() string {
	if u := b.core.EndpointURL(); u.Host != "s3.amazonaws.com" {
		return " --endpoint-url " + u.Scheme + "://" + u.Host
	}
	return ""
}

func (b *Bucket) networkHint(err error) string {
	switch text := err.Error(); {
	case strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return "the server has no TLS; if its network is yours alone, write endpoint=http://" + b.host + "&insecure=1"
	case strings.Contains(text, "certificate"):
		return "the server's certificate is not one that this machine trusts; add its authority to the system's (SSL_CERT_FILE)"
	case strings.Contains(text, "no such host"):
		return "check endpoint="
	}
	return ""
}

// preconditionFailed tells whether a request's If-Match or If-None-Match was not fulfilled. Within an answer (200) there is only the code.
func preconditionFailed(err error) bool {
	var r minio.ErrorResponse
	return errors.As(err, &r) && (r.StatusCode == http.StatusPreconditionFailed || r.Code == minio.PreconditionFailed)
}
