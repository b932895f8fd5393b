package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// report lets the engine do something to a connection and prints the result.
func (c *cli) report(ctx context.Context, conn token.Connection, do func(*installation,
	*rotation.Rotator) (rotation.Report, error)) error {
	return c.with(ctx, func(in *installation) error {
		if _, _, err := in.load(ctx, conn); err != nil {
			return err
		}
		rotator, err := in.rotator()
		if err != nil {
			return err
		}
		report, err := do(in, rotator)
		if errors.Is(err, rotation.ErrNothingQuarantined) {
			return exitf(notFound, "%w", err)
		}
		if err != nil {
			return err
		}
		r := report.Connections[0]
		return errors.Join(c.answer(r, func(w io.Writer) { printReport(w, r) }), reportError(report.Op, r))
	})
}

// outcomeError turns the outcome of one connection into an error; nil: it succeeded.
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
		if r.Refreshing != nil {
			return exitf(tryLater, "%s", r.Refreshing.Describe(stamp))
		}
		return exitf(tryLater, "the run that got a new token pair of %s publishes it now; %s", c, again)
	case rotation.Deferred:
		return exitf(tryLater, "%s must wait%s; %s", c, detail, again)
	case rotation.Unknown:
		return exitf(tryLater, "the response to a refresh of %s was lost%s; tokenturn checks again automatically; %s",
			c, detail, again)
	case rotation.InQuarantine:
		return errQuarantined(c)
	}
	return fmt.Errorf("%s: %s%s; see: tokenturn connection show %[1]s", c, r.Outcome, detail)
}

// reportError is outcomeError, after what was done to the connection.
func reportError(op string, r rotation.ConnectionReport) error {
	err := outcomeError(r)
	if op == "discard" && exitCode(err) == tryLater { // no other run is at work; what was done waits for its next step
		return exitf(tryLater, "the %s", discarded(r))
	}
	return err
}

// discarded says what follows once a response is discarded and there is no new token pair yet.
func discarded(r rotation.ConnectionReport) string {
	text := fmt.Sprintf("quarantined response of %s is discarded; tokenturn presents the old refresh token once more",
		r.Connection)
	if !r.RetryAt.IsZero() {
		text += ", after " + stamp(r.RetryAt)
	}
	return text
}

// printReports shows each result, and how many connections had which outcome.
func printReports(w io.Writer, report rotation.Report) {
	for _, r := range report.Connections {
		printReport(w, r)
	}
	var counts []string
	for _, outcome := range slices.Sorted(maps.Keys(report.Outcomes)) {
		counts = append(counts, fmt.Sprintf("%d %s", report.Outcomes[outcome], outcome))
	}
	if len(counts) > 0 {
		fmt.Fprintln(w, strings.Join(counts, ", "))
	}
}

// worst joins the errors of all connections under the exit code of the most urgent one.
func worst(report rotation.Report) error {
	var errs []error
	code := done
	for _, r := range report.Connections {
		err := reportError(report.Op, r)
		if err == nil {
			continue
		}
		errs = append(errs, err)
		switch one := exitCode(err); {
		case code == done, one == failed, one == needsConsent && code == tryLater:
			code = one
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return &exitError{code, errors.Join(errs...)}
}

func printReport(w io.Writer, r rotation.ConnectionReport) {
	if outcomeError(r) == nil {
		fmt.Fprintf(w, "%s %s: generation %s, access token valid until %s\n", r.Connection, r.Outcome,
			generation(r.Epoch, r.Generation), stamp(r.ExpiresAt))
	}
}
