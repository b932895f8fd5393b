package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func (c *cli) connectionCommand() *cobra.Command {
	return c.noun("connection", "Manage connections to Procore accounts",
		"A connection is one user's consent to your app, or the app's service account in one\n"+
			"company. Its name is ENV/NAME, such as sandbox/acme.",
		c.connectionInvite(), c.connectionAuthorize(), c.connectionImport(), c.connectionServiceAccount(),
		c.connectionConvert(),
		c.connectionList(), c.connectionShow(), c.connectionHistory(), c.connectionRotate(), c.connectionRelease(),
		c.connectionDiscard(), c.connectionDisconnect(), c.connectionUndo(), c.connectionForget(),
		c.connectionProtect())
}

// connectionAnswer describes one connection. Nothing in it is secret.
type connectionAnswer struct {
	Connection token.Connection   `json:"connection"`
	Status     rotation.Status    `json:"status"`
	Epoch      int64              `json:"epoch"`
	Generation int64              `json:"generation"`
	ExpiresAt  time.Time          `json:"expires_at,omitzero"` // of the access token
	RotatedAt  time.Time          `json:"rotated_at,omitzero"`
	DueAt      time.Time          `json:"due_at,omitzero"`
	Failure    *rotation.Failure  `json:"failure,omitempty"` // the most serious of Failures
	Failures   []rotation.Failure `json:"failures,omitempty"`
	// Quarantined: a person must decide about a token response.
	Quarantined bool `json:"held,omitempty"`
	// ServiceAccount: the connection is of the app itself, not of a user.
	ServiceAccount bool `json:"service_account,omitempty"`
}

func newConnectionAnswer(r rotation.Record) connectionAnswer {
	a := connectionAnswer{Connection: r.Connection, Status: r.Status, Epoch: r.Epoch, Generation: r.Generation,
		RotatedAt: r.RotatedAt, DueAt: r.DueAt, Failure: r.Failure(), Failures: r.Failures, Quarantined: r.Quarantined,
		ServiceAccount: r.ServiceAccount}
	if r.Current != nil {
		a.ExpiresAt = r.Current.ExpiresAt
	}
	return a
}
