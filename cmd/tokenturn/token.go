package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func (c *cli) tokenCommand() *cobra.Command {
	return c.noun("token", "Use the access token of a connection", "", c.tokenPrint(), c.tokenExec())
}

func minTTLFlag(cmd *cobra.Command, minTTL *time.Duration) {
	cmd.Flags().DurationVar(minTTL, "min-ttl", 0, "how long the token must still be valid")
}

// readToken returns what readers see of conn, with a token valid for at least minTTL.
func (c *cli) readToken(ctx context.Context, cmd *cobra.Command, conn token.Connection,
	minTTL time.Duration) (doc token.Document, err error) {
	if minTTL < 0 || minTTL%time.Second != 0 {
		return doc, usageError(cmd, errors.New("--min-ttl takes whole seconds, such as 5m or 90s"))
	}
	err = c.with(ctx, func(in *installation) error {
		doc, err = in.published(ctx, conn)
		if minTTL == 0 || err == nil && time.Until(doc.ExpiresAt) >= minTTL {
			return err
		}
		working, finished := c.uninterrupted(ctx, finishingFirst)
		defer finished()
		if err := in.ensure(working, conn, minTTL); err != nil {
			return err
		}
		doc, err = in.published(ctx, conn)
		return err
	})
	if left := time.Until(doc.ExpiresAt); err == nil && left < minTTL { // a new token does not live longer
		err = fmt.Errorf("--min-ttl %v is longer than the access token of %s can be valid: its lifetime is %v, and %v "+
			"are left",
			minTTL, conn, doc.ExpiresAt.Sub(doc.CreatedAt), left.Round(time.Second))
	}
	return doc, err
}

// ensure rotates conn if its token is valid for less than minTTL.
func (in *installation) ensure(ctx context.Context, conn token.Connection, minTTL time.Duration) error {
	rotator, err := in.rotator()
	if err != nil {
		return err
	}
	report, err := rotator.Ensure(ctx, conn, rotation.Request{Op: "ensure", Connection: conn.String(),
		MinTTLSeconds: int64(minTTL / time.Second)})
	if err != nil {
		return err
	}
	return outcomeError(report.Connections[0])
}

// A rotation usually takes a second. A command that meets one waits this long for its end,
// and looks again every pollInterval.
const (
	rotationWait = 3 * time.Second
	pollInterval = 200 * time.Millisecond
)

// errSoon ends the errors about what will be over in a moment.
var errSoon = errors.New("try again in a moment")

// published returns what readers see of conn, if its token can be used now.
func (in *installation) published(ctx context.Context, conn token.Connection) (token.Document, error) {
	for end := time.Now().Add(rotationWait); ; {
		doc, err := in.current(ctx, conn)
		if !errors.Is(err, errSoon) || !time.Now().Before(end) {
			return doc, err
		}
		select {
		case <-ctx.Done():
			return doc, fmt.Errorf("waiting for the token of %s: %w", conn, ctx.Err())
		case <-time.After(pollInterval):
		}
	}
}

// current is published without waiting for a rotation in progress.
func (in *installation) current(ctx context.Context, conn token.Connection) (token.Document, error) {
	rec, _, err := in.load(ctx, conn)
	if err != nil {
		return token.Document{}, err
	}
	now := time.Now()
	switch {
	case rec.Status == rotation.Disconnected:
		return token.Document{}, exitf(notFound, "%s is disconnected; connect again with: tokenturn connection "+
			"invite %[1]s", conn)
	case rec.Status != rotation.Active:
		return token.Document{}, errNeedsConsent(conn)
	case rec.Quarantined:
		return token.Document{}, errQuarantined(conn)
	case rec.Attempt != nil && !rec.ServiceAccount && now.Before(rec.Attempt.Until):
		return token.Document{}, exitf(tryLater, "%s is being rotated, which may invalidate its current access token; %w",
			conn, errSoon)
	}
	version, err := in.secrets.Current(ctx, conn)
	switch {
	case errors.Is(err, rotation.ErrNoSecret), errors.Is(err, rotation.ErrNoVersion):
		return token.Document{}, exitf(tryLater, "the first token of %s is not published yet; %w", conn, errSoon)
	case err != nil:
		return token.Document{}, fmt.Errorf("reading the token of %s: %w", conn, err)
	}
	doc, err := token.ParseDocument(version.Value)
	switch {
	case err != nil:
		return token.Document{}, fmt.Errorf("reading the token of %s: %w", conn, err)
	case doc.Connection != conn:
		return token.Document{}, fmt.Errorf("the secret of %s contains a token of %s; find out who wrote it, then run: "+
			"tokenturn connection rotate %[1]s", conn, doc.Connection)
	case !rec.ServiceAccount && (doc.Epoch < rec.Epoch || doc.Epoch == rec.Epoch && doc.Generation < rec.Generation):
		return token.Document{}, exitf(tryLater, "the new access token of %s is not published yet, "+
			"and the previous one may be invalid; %w", conn, errSoon)
	case !now.Before(doc.ExpiresAt):
		return token.Document{}, exitf(tryLater, "the access token of %s expired %s; get a new one with --min-ttl 1m, "+
			"or find the cause with: tokenturn connection show %[1]s",
			conn, distance(doc.ExpiresAt, now))
	}
	return doc, nil
}
