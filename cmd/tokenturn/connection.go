package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func (c *cli) connectionCommand() *cobra.Command {
	return c.noun("connection", "Manage connections to Procore accounts",
		"A connection is one user's consent to your app, or the app's service account in one\n"+
			"company. Its name is ENV/NAME, such as sandbox/acme.\n\n"+
			"A generation such as 1.27 has two parts: consents, imports and disconnections raise the\n"+
			"first (the epoch), and each refresh since then raises the second.",
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
	// Who has consented, and for which company.
	ResourceOwner string `json:"resource_owner,omitempty"`
	Login         string `json:"login,omitempty"`
	Company       string `json:"company,omitempty"`
	CompanyName   string `json:"company_name,omitempty"`
	// InvitedUntil is when the last invitation to a pending connection expires.
	InvitedUntil time.Time `json:"invited_until,omitzero"`

	expired bool // see rotation.Record.Expired
}

func newConnectionAnswer(r rotation.Record) connectionAnswer {
	a := connectionAnswer{Connection: r.Connection, Status: r.Status, Epoch: r.Epoch, Generation: r.Generation,
		RotatedAt: r.RotatedAt, DueAt: r.DueAt, Failure: r.Failure(), Failures: r.Failures, Quarantined: r.Quarantined,
		ServiceAccount: r.ServiceAccount}
	if r.Current != nil {
		a.ExpiresAt = r.Current.ExpiresAt
	}
	if p := r.Pin; p != nil {
		a.ResourceOwner, a.Login, a.Company, a.CompanyName = p.ResourceOwner, p.Login, p.Company, p.CompanyName
	}
	if r.Status == rotation.Pending {
		a.InvitedUntil = r.InvitedUntil
	}
	return a
}

// generation is how people read the position of a pair: the epoch, which consents, imports
// and disconnections raise, and the refreshes since then.
func generation(epoch, generation int64) string { return fmt.Sprintf("%d.%d", epoch, generation) }
