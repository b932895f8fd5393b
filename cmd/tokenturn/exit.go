package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// Exit codes. They are part of the contract: scripts act on them.
const (
	done         = 0
	failed       = 1
	usage        = 2
	needsConsent = 3
	notFound     = 4
	tryLater     = 5
	interrupted  = 130 // as shells report an interrupt: 128 and the number of the signal
)

// exitError is an error with its exit code. Every other error exits with failed, except
// errInterrupted.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func exitf(code int, format string, args ...any) error {
	return &exitError{code, fmt.Errorf(format, args...)}
}

// usageError adds to the error where the usage of cmd is described.
func usageError(cmd *cobra.Command, err error) error {
	return exitf(usage, "%w\nSee: %s --help", err, cmd.CommandPath())
}

// counted is the number n with its noun.
func counted(n int, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func exitCode(err error) int {
	if err == nil {
		return done
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code
	}
	if errors.Is(err, errInterrupted) {
		return interrupted
	}
	return failed
}

// errUnknown names the connections that may be meant.
func errUnknown(c token.Connection, near ...string) error {
	return exitf(notFound, "there is no connection %s%s; list the connections with: tokenturn connection list\n"+
		"or create it with: tokenturn connection invite %[1]s", c, didYouMean("", near))
}

func errQuarantined(c token.Connection) error { return fmt.Errorf("%s is %s", c, quarantineAdvice(c)) }

// quarantineAdvice says what quarantine means and how a person ends it.
func quarantineAdvice(c token.Connection) string {
	return fmt.Sprintf("quarantined: tokenturn cannot use a response of the token endpoint as it is and presents "+
		"nothing; name the correct refresh token with `tokenturn connection release %s`, discard the response with "+
		"`tokenturn connection discard %[1]s`, or connect again with `tokenturn connection invite %[1]s`", c)
}

func errNeedsConsent(c token.Connection) error {
	return exitf(needsConsent, "%s needs a person's consent; create a link to send to them with: "+
		"tokenturn connection invite %[1]s", c)
}

// errNoApplication is rotation.ErrNoApplication with what the operator has to do. near are
// the environments that may be meant.
func errNoApplication(environment string, near ...string) error {
	return exitf(notFound, "there are no app credentials for %s%s; store them with: tokenturn app set %[1]s",
		environment, didYouMean("", near))
}
