package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/rotation"
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

// outcomeError turns the outcome of one connection into an error, nil if it is
// what was wanted.
func outcomeError(r rotation.ConnectionReport) error {
	c, detail := r.Connection, ""
	if r.Detail != "" {
		detail = ": " + r.Detail
	}
	again := "try again later"
	if !r.RetryAt.IsZero() {
		again = "try again after " + stamp(r.RetryAt)
	}
	switch r.Outcome {
	case rotation.Rotated, rotation.Published, rotation.Recovered, rotation.Fresh:
		return nil
	case rotation.ConsentNeeded:
		return fmt.Errorf("%w%s", errNeedsConsent(c), detail)
	case rotation.NotFound:
		return errUnknown(c)
	case rotation.Busy:
		return exitf(tryLater, "%s is being rotated by another run; %s", c, again)
	case rotation.Deferred:
		return exitf(tryLater, "%s has to wait%s; %s", c, detail, again)
	case rotation.Unknown:
		return exitf(tryLater, "the answer to a refresh of %s was lost%s; it is looked into by itself, %s", c, detail, again)
	case rotation.InQuarantine:
		return errHeld(c)
	}
	return fmt.Errorf("%s: %s%s; see: tokenturn connection show %[1]s", c, r.Outcome, detail)
}

func errUnknown(c token.Connection) error {
	return exitf(notFound, "there is no connection %s here; see what there is with: tokenturn connection list\n"+
		"or connect it with: tokenturn connection invite %[1]s", c)
}

func errHeld(c token.Connection) error { return fmt.Errorf("%s is %s", c, endHold(c)) }

// endHold says what a quarantine means and how a person ends it.
func endHold(c token.Connection) string {
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
