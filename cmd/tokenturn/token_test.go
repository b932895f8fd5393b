package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
		want               string
	}{
		"presented":             {time.Second, 1500 * time.Millisecond, ""},
		"decided":               {0, time.Second, ""},
		"over":                  {0, 0, ""},
		"answer lost":           {time.Minute, time.Minute, "is being rotated"},
		"publishing takes long": {time.Second, time.Minute, "is not published yet, and the previous one may be invalid"},
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
							rec.Attempt = &rotation.Attempt{BegunAt: asked, Until: asked.Add(time.Minute)}
						}
						return rec
					},
					document: func() token.Document {
						return token.Document{Connection: acme, Environment: acme.Environment, Epoch: 1,
							Generation:  generation(test.published),
							AccessToken: token.NewSecret("any"), TokenType: "Bearer", CreatedAt: asked, ExpiresAt: asked.Add(time.Hour)}
					},
				}
				in := &installation{ledger: store, secrets: store}
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
				if _, err := in.published(gone, acme); test.want != "" && !errors.Is(err, context.Canceled) {
					t.Errorf("cancelled: %v", err)
				}
			})
		})
	}
}
