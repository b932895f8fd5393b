package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/readapi"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func (c *cli) tokenCommand() *cobra.Command {
	return c.noun("token", "Use the access token of a connection", "", c.tokenPrint(), c.tokenExec())
}

// renewal says whether a token is renewed before it is handed out.
type renewal struct {
	minTTL   time.Duration // life that the token must have left
	mustLive bool          // minTTL is set
	noRenew  bool
}

func (r *renewal) flags(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&r.minTTL, "min-ttl", 0, "how long the token must still be valid (default: see above)")
	cmd.Flags().BoolVar(&r.noRenew, "no-renew", false, "never rotate, and fail if the token has expired")
}

func (r *renewal) check(cmd *cobra.Command) error {
	r.mustLive = cmd.Flags().Changed("min-ttl")
	switch {
	case r.minTTL < 0 || r.minTTL%time.Second != 0:
		return usageError(cmd, errors.New("--min-ttl takes whole seconds, such as 5m or 90s"))
	case r.noRenew && r.minTTL > 0:
		return usageError(cmd, errors.New("--no-renew and --min-ttl exclude each other"))
	}
	return nil
}

// readToken returns what readers see of conn, renewed first if the token has little life left.
func (c *cli) readToken(ctx context.Context, cmd *cobra.Command, conn token.Connection,
	r renewal) (doc token.Document, err error) {
	if err := r.check(cmd); err != nil {
		return doc, err
	}
	err = c.with(ctx, func(in *installation) error {
		doc, err = c.renewedToken(ctx, in, conn, r)
		return err
	})
	if err == nil && !doc.HasExpiry() {
		c.say("Procore does not say how long the access token of %s is valid.", conn)
	}
	return doc, err
}

func (c *cli) renewedToken(ctx context.Context, in *installation, conn token.Connection,
	r renewal) (doc token.Document, err error) {
	doc, err = in.published(ctx, conn)
	within := r.minTTL
	if !r.mustLive && !r.noRenew {
		within = readapi.RenewBefore(doc)
	}
	switch {
	case within == 0, err == nil && (!doc.HasExpiry() || time.Until(doc.ExpiresAt) >= within):
		return doc, err
	case err != nil && !r.mustLive && !errors.Is(err, errSoon) && !errors.Is(err, errTokenExpired):
		return doc, err // a rotation would change nothing
	}
	working, finished := c.uninterrupted(ctx, finishingFirst)
	defer finished()
	if renewErr := in.ensure(working, conn, within); renewErr != nil && (err != nil || r.mustLive) {
		return doc, renewErr
	} else if renewErr != nil {
		c.say("The access token of %s expires %s, and was not renewed: %v", conn, distance(doc.ExpiresAt, time.Now()),
			renewErr)
		return doc, nil
	}
	doc, err = in.published(ctx, conn)
	if left := time.Until(doc.ExpiresAt); err == nil && doc.HasExpiry() && left < r.minTTL { // no new one lives longer
		err = fmt.Errorf("--min-ttl %v is longer than the access token of %s can be valid: its lifetime is %v, and %v "+
			"are left", r.minTTL, conn, doc.ExpiresAt.Sub(doc.CreatedAt), left.Round(time.Second))
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

// errTokenExpired is the error about a token that has expired.
var errTokenExpired = errors.New("tokenturn renews it unless you use --no-renew")

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
		refreshing := in.settings.Refreshing(rec, now)
		if refreshing.Lost {
			return token.Document{}, exitf(tryLater, "%s", refreshing.Describe(stamp))
		}
		return token.Document{}, exitf(tryLater, "%s; %w", refreshing.Describe(stamp), errSoon)
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
	case doc.HasExpiry() && !now.Before(doc.ExpiresAt):
		return token.Document{}, exitf(tryLater, "the access token of %s expired %s; %w; find the cause with: "+
			"tokenturn connection show %[1]s", conn, distance(doc.ExpiresAt, now), errTokenExpired)
	}
	return doc, nil
}
