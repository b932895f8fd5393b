package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// rotating is a ledger and a secret store during a rotation that goes on as time passes.
type rotating struct {
	ledger
	rotation.SecretStore
	rec      func() rotation.Record
	document func() token.Document
}

func (r rotating) Load(context.Context, token.Connection) (rotation.Record, []rotation.TokenResponse, error) {
	return r.rec(), nil, nil
}

func (r rotating) Current(context.Context, token.Connection) (rotation.Version, error) {
	value, err := r.document().Encode()
	return rotation.Version{Value: value}, err
}

// During a rotation a command gets the new token a moment later, and never the one that the
// rotation ends. Only if it takes long does the caller have to try again.
func TestTokenDuringARotation(t *testing.T) {
	acme := token.Connection{Environment: "sandbox", Name: "acme"}
	for name, test := range map[string]struct {
		decided, published time.Duration // after the question; zero: before it
		begun              time.Duration // before the question
		want               string
	}{
		"presented":     {time.Second, 1500 * time.Millisecond, 0, ""},
		"decided":       {0, time.Second, 0, ""},
		"over":          {0, 0, 0, ""},
		"no answer yet": {time.Minute, time.Minute, 0, "and has no result yet"},
		"answer lost": {time.Minute, time.Minute, 20 * time.Second, "was lost or unusable, or the process that refreshed " +
			"it stopped; tokenturn checks again automatically at "},
		"publishing takes long": {time.Second, time.Minute, 0, "is not published yet, and the previous one may be invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := time.Now()
				generation := func(after time.Duration) int64 {
					if time.Since(asked) < after {
						return 7
					}
					return 8
				}
				store := rotating{
					rec: func() rotation.Record {
						rec := rotation.Record{Connection: acme, Revision: "r", Status: rotation.Active, Epoch: 1,
							Generation: generation(test.decided)}
						if time.Since(asked) < test.decided {
							begun := asked.Add(-test.begun)
							rec.Attempt = &rotation.Attempt{BegunAt: begun, Until: begun.Add(time.Minute)}
						}
						return rec
					},
					document: func() token.Document {
						return token.Document{Connection: acme, Environment: acme.Environment, Epoch: 1,
							Generation:  generation(test.published),
							AccessToken: token.NewSecret("any"), TokenType: "Bearer", CreatedAt: asked, ExpiresAt: asked.Add(time.Hour)}
					},
				}
				in := &installation{ledger: store, secrets: store, settings: rotation.DefaultSettings("test")}
				doc, err := in.published(t.Context(), acme)
				if waited := time.Since(asked); waited > rotationWait+pollInterval {
					t.Errorf("waited %v", waited)
				}
				if test.want == "" && (err != nil || doc.Generation != 8) ||
					test.want != "" && (exitCode(err) != tryLater || !strings.Contains(err.Error(), test.want)) {
					t.Errorf("generation %d, %v", doc.Generation, err)
				}
				gone, cancel := context.WithCancel(t.Context())
				cancel()
				asked = time.Now()
				if _, err := in.published(gone, acme); test.want != "" && test.begun == 0 && !errors.Is(err, context.Canceled) {
					t.Errorf("cancelled: %v", err)
				}
			})
		})
	}
}

// refusingApps has no app credentials, so every renewal fails.
type refusingApps struct{ applications }

func (refusingApps) Application(context.Context, string) (rotation.Application, error) {
	return rotation.Application{}, rotation.ErrNoApplication
}

// A token with little life left is renewed. If that fails, it is still a token, unless the
// caller asks for one that lives longer.
func TestTokenThatCannotBeRenewed(t *testing.T) {
	acme := token.Connection{Environment: "sandbox", Name: "acme"}
	for name, test := range map[string]struct {
		left, lifetime time.Duration
		renewal        renewal
		code           int
		says           string
	}{
		"much left":         {2 * time.Minute, time.Hour, renewal{}, done, ""},
		"little left":       {30 * time.Second, time.Hour, renewal{}, done, "was not renewed: "},
		"too little":        {2 * time.Minute, time.Hour, renewal{minTTL: 5 * time.Minute, mustLive: true}, failed, ""},
		"no minimum":        {50 * time.Second, time.Hour, renewal{mustLive: true}, done, ""},
		"not to be renewed": {50 * time.Second, time.Hour, renewal{noRenew: true}, done, ""},
		"expired":           {-time.Second, time.Hour, renewal{}, failed, ""},
		"expired, as it is": {-time.Second, time.Hour, renewal{noRenew: true}, tryLater, ""},
		"short-lived":       {30 * time.Second, time.Minute, renewal{}, done, ""},
		"lifetime unknown":  {-time.Hour, 0, renewal{}, done, ""},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			expires := now.Add(test.left)
			doc := token.Document{Connection: acme, Environment: acme.Environment, Epoch: 1, Generation: 7,
				AccessToken: token.NewSecret("any"), TokenType: "Bearer", CreatedAt: expires.Add(-test.lifetime),
				ExpiresAt: expires}
			value, err := doc.Encode()
			if err != nil {
				t.Fatal(err)
			}
			store := rotating{document: func() token.Document { return doc }, rec: func() rotation.Record {
				return rotation.Record{Connection: acme, Revision: "r", Status: rotation.Active, Epoch: 1, Generation: 7,
					Published: token.VersionID(value), Current: &rotation.Current{SavedAt: doc.CreatedAt, ExpiresAt: expires,
						Lifetime: rotation.Seconds(test.lifetime / time.Second), VersionID: token.VersionID(value)}}
			}}
			var said strings.Builder
			c := &cli{stderr: &said}
			in := &installation{ledger: store, secrets: store, sealer: noSealer{}, apps: refusingApps{},
				issuer: procore.New(procore.Config{RedeemTimeout: time.Second}), log: slog.New(slog.DiscardHandler),
				settings: rotation.Settings{Cadence: time.Hour, Concurrency: 1, RedeemRate: 1, Lease: time.Minute,
					Quiet: 2 * time.Minute, RedeemTimeout: 20 * time.Second}}
			got, err := c.renewedToken(t.Context(), in, acme, test.renewal)
			if exitCode(err) != test.code || test.code == done && got.Generation != 7 {
				t.Errorf("exit code %d: %v", exitCode(err), err)
			}
			if (said.String() == "") != (test.says == "") || !strings.Contains(said.String(), test.says) {
				t.Errorf("said %q", said.String())
			}
		})
	}
}

type noSealer struct{ rotation.Sealer }
