package rotation_test

import (
	"errors"
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
