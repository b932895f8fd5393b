package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// Exit codes. Scripts decide by them.
const (
	done         = 0
	failed       = 1
	usage        = 2
	needsConsent = 3
	notFound     = 4
	tryLater     = 5
)

// exitError is an error with the exit code that it leads to. Any other error
// leads to failed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func exitf(code int, format string, args ...any) error {
	return &exitError{code, fmt.Errorf(format, args...)}
}

// usageError says how cmd is used, besides what is wrong.
func usageError(cmd *cobra.Command, err error) error {
	return exitf(usage, "%w\nSee: %s --help", err, cmd.CommandPath())
}

func exitCode(err error) int {
	if err == nil {
		return done
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code
	}
	return failed
}

func errUnknown(c token.Connection) error {
	return exitf(notFound, "there is no connection %s here; see what there is with: tokenturn connection list\n"+
		"or connect it with: tokenturn connection invite %[1]s", c)
}

func errQuarantined(c token.Connection) error { return fmt.Errorf("%s is %s", c, quarantineAdvice(c)) }

// quarantineAdvice says what a quarantine means and how a person ends it.
func quarantineAdvice(c token.Connection) string {
	return fmt.Sprintf("held, because an answer of the token endpoint cannot be used as it is; "+
		"name the right refresh token with `tokenturn connection release %s`, give the answer up with `tokenturn "+
		"connection discard %[1]s`, or connect anew", c)
}

func errNeedsConsent(c token.Connection) error {
	return exitf(needsConsent, "%s needs the consent of a person; make a link for them with: "+
		"tokenturn connection invite %[1]s", c)
}

// errNoApplication puts rotation.ErrNoApplication into the operator's words.
func errNoApplication(environment string) error {
	return exitf(notFound, "there are no app credentials for %s here; store them with: tokenturn app set %[1]s",
		environment)
}
