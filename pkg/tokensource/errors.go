package tokensource

import (
	"errors"
	"fmt"
)

// Errors of a Source, wrapped in one that names the connection and what to do.
// While an earlier token is valid, a failed read is not an error.
var (
	// ErrNotFound: the connection has no secret, or no value in it: nobody has
	// consented yet, the connection was removed, or its name or the prefix is wrong.
	ErrNotFound = errors.New("there is no token")
	// ErrDenied: this program may not read the secret or use its key.
	ErrDenied = errors.New("access is denied")
	// ErrUnusable: the secret's value is not a token of this connection.
	ErrUnusable = errors.New("the secret's value cannot be used")
	// ErrUnavailable: Secrets Manager did not answer, or answered with an internal error.
	ErrUnavailable = errors.New("the secret store (Secrets Manager) is not available")
	// ErrExpired: the newest token that could be read has expired: the rotation does not
	// run, or the connection needs a new consent. The secret does not show which; with
	// WithEnsure the error may also wrap one of the next two.
	ErrExpired = errors.New("the token has expired")

	// ErrNeedsConsent: a person must allow access (again). Only with WithEnsure.
	ErrNeedsConsent = errors.New("a person must consent")
	// ErrRotationInProgress: there is no valid token now, but there may be one soon
	// without any action. Only with WithEnsure.
	ErrRotationInProgress = errors.New("the rotation is in progress")
)

// classify translates an error of the SDK by its code
// (https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html).
func classify(err error, secret string) error {
	code := ""
	if e, ok := errors.AsType[interface {
		error
		ErrorCode() string
	}](err); ok {
		code = e.ErrorCode()
	}
	switch code {
	case "ResourceNotFoundException":
		return fmt.Errorf("%w in secret %s: check connection and prefix, or connect the account: %w", ErrNotFound, secret,
			err)
	case "InvalidRequestException":
		return fmt.Errorf("%w in secret %s, which is being deleted: connect the account again: %w", ErrNotFound, secret,
			err)
	case "AccessDeniedException", "DecryptionFailure":
		return fmt.Errorf("%w to secret %s: allow secretsmanager:GetSecretValue on it and kms:Decrypt on its key: %w",
			ErrDenied, secret, err)
	}
	return fmt.Errorf("%w for secret %s: %w", ErrUnavailable, secret, err)
}
