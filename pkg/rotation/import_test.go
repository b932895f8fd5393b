package rotation_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// A token that any connection has or had cannot be imported to any connection.
func TestKnownTokensAreNotImported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		spent := b.secretOf(t, b.record(t).Current.Fingerprint)
		if _, err := b.rotator().Rotate(t.Context(), acme); err != nil {
			t.Fatal(err)
		}
		current := b.secretOf(t, b.record(t).Current.Fingerprint)
		other := token.Connection{Environment: "sandbox", Name: "other"}
		for _, test := range []struct {
			what   string
			secret token.Secret
			to     token.Connection
			want   *rotation.KnownTokenError
		}{
			{"spent, of another connection", spent, other, &rotation.KnownTokenError{Connection: acme, Spent: true}},
			{"spent, of its own", spent, acme, &rotation.KnownTokenError{Connection: acme, Spent: true}},
			{"current", current, other, &rotation.KnownTokenError{Connection: acme}},
			{"unknown", token.NewSecret("from elsewhere"), other, nil},
		} {
			histories, read := 0, 0
			known, err := rotation.CheckImports(t.Context(), b.Ledger, map[token.Connection]token.Secret{test.to: test.secret},
				func(n int) func() { histories = n; return func() { read++ } })
			if err != nil {
				t.Fatal(err)
			}
			got, _ := errors.AsType[*rotation.KnownTokenError](known[test.to])
			if (got == nil) != (test.want == nil) || got != nil && *got != *test.want || len(known) > 1 {
				t.Errorf("%s: %v, want %v", test.what, known, test.want)
			}
			if histories != 1 || read != histories {
				t.Errorf("%s: %d of %d histories are reported", test.what, read, histories)
			}
		}
	})
}

// secretOf finds a refresh token that was issued.
func (b *harness) secretOf(t *testing.T, fingerprint token.Fingerprint) token.Secret {
	t.Helper()
	_, others := b.Issuer.Secrets()
	for _, secret := range others {
		if secret.Fingerprint() == fingerprint {
			return secret
		}
	}
	t.Fatal("the issuer does not know that token")
	return token.Secret{}
}

// Nobody connected what was imported, so the notice of a refused token asks for another one.
func TestARefusedImportAsksForTheRightToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		_, err := rotation.Register(t.Context(), b.Ledger, b.SecretStore, b.settings.Stack, acme)
		must(t, err)
		must(t, b.consents().Import(t.Context(), acme, token.NewSecret("mistyped"), "42"))
		if r := b.rotate(t); r.Outcome != rotation.ConsentNeeded {
			t.Fatalf("outcome %s", r.Outcome)
		}
		b.sweep(t)
		notices := b.Notifier.Notices()
		if len(notices) != 1 || !strings.Contains(notices[0].Summary, "`tokenturn connection import sandbox/acme`") ||
			strings.Contains(notices[0].Summary, "must allow access again") {
			t.Errorf("notices %+v", notices)
		}
		if !b.record(t).OnlyImported() {
			t.Error("the row does not say that the token was imported")
		}
		_, err = b.consent(t.Context(), pat, rotation.Identity{Company: "42"})
		must(t, err)
		if b.record(t).OnlyImported() {
			t.Error("a consent is taken for an import")
		}
	})
}
