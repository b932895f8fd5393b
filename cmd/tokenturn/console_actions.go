package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/console"
	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// consoleActions does what the commands of the same names do.
type consoleActions struct {
	c       *cli
	in      *installation
	rotator *rotation.Rotator
	// links is the base URL of consent links; empty: that of the app's redirect URI.
	links string
}

var _ console.Actions = (*consoleActions)(nil)

// Rotate implements console.Actions. A consent that waits to be checked has nothing to rotate yet.
func (a *consoleActions) Rotate(ctx context.Context, conn token.Connection) (string, error) {
	return a.report(ctx, conn, a.rotator.Rotate)
}

// Release implements console.Actions.
func (a *consoleActions) Release(ctx context.Context, conn token.Connection, refresh token.Secret) (string, error) {
	if err := a.in.mustBeQuarantined(ctx, conn); err != nil {
		return "", err
	}
	refresh = token.NewSecret(strings.TrimSpace(refresh.Reveal()))
	return a.report(ctx, conn, func(ctx context.Context, conn token.Connection) (rotation.Report, error) {
		return a.rotator.Release(ctx, conn, refresh)
	})
}

// Discard implements console.Actions.
func (a *consoleActions) Discard(ctx context.Context, conn token.Connection) (string, error) {
	if err := a.in.mustBeQuarantined(ctx, conn); err != nil {
		return "", err
	}
	return a.report(ctx, conn, a.rotator.Discard)
}

// report does something with a connection and says the outcome.
func (a *consoleActions) report(ctx context.Context, conn token.Connection,
	do func(context.Context, token.Connection) (rotation.Report, error)) (string, error) {
	if _, _, err := a.in.load(ctx, conn); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, exchangeLimit)
	defer cancel()
	report, err := do(ctx, conn)
	if err != nil {
		return "", err
	}
	r := report.Connections[0]
	switch err := reportError(report.Op, r); {
	case err == nil:
	case report.Op == "discard" && exitCode(err) == tryLater: // what the person asked for is done
		return "The " + discarded(r) + ".", nil
	default:
		return "", err
	}
	var text strings.Builder
	printReport(&text, r)
	return strings.TrimSpace(text.String()) + ".", nil
}

// Disconnect implements console.Actions.
func (a *consoleActions) Disconnect(ctx context.Context, conn token.Connection) (string, error) {
	if _, _, err := a.in.load(ctx, conn); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, exchangeLimit)
	defer cancel()
	answer, err := a.in.disconnectNow(ctx, a.rotator, conn, defaultRecovery)
	if err != nil {
		return "", err
	}
	var text bytes.Buffer
	answer.print(&text)
	return strings.TrimSpace(text.String()), answer.unfinished()
}

// Invite implements console.Actions.
func (a *consoleActions) Invite(ctx context.Context, conn token.Connection) (token.Secret, time.Time, error) {
	if _, _, err := a.in.load(ctx, conn); err != nil {
		return token.Secret{}, time.Time{}, err
	}
	base, err := a.links, error(nil)
	if base == "" {
		base, err = a.in.linkBase(ctx, conn.Environment)
	}
	if err == nil && base == "" {
		err = errors.New("the base URL of the link is not known; set TOKENTURN_PUBLIC_URL")
	}
	if err != nil {
		return token.Secret{}, time.Time{}, err
	}
	link, made, err := a.in.makeInvitation(ctx, conn, base, invitation{expires: invitations.DefaultLifetime})
	if err != nil {
		return token.Secret{}, time.Time{}, fmt.Errorf("creating a link: %w", err)
	}
	return link, made.ExpiresAt, nil
}
