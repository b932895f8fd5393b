package token_test

import (
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// Every value of a secret is either a document that keeps its meaning when it is
// written again, or an error that shows nothing of the value.
func FuzzParseDocument(f *testing.F) {
	f.Add(`{"format":1,"connection":"sandbox/acme","access_token":"canary-a","expires_at":"2026-11-21T23:30:00Z","epoch":1,"sealed_answer":"AAAA"}`)
	f.Add(`{"format":2,"connection":"sandbox/acme","access_token":"canary-a","expires_at":"2026-11-21T23:30:00Z"}`)
	f.Add(`{"format":1,"connection":"../acme","access_token":"canary-a","expires_at":"99999-01-01T00:00:00Z"}`)
	f.Add(`{"format":1,"Connection":"sandbox/acme","ACCESS_TOKEN":"canary-a","expires_at":"0001-01-01T00:00:00Z","epoch":-1}`)
	f.Add(`[{"format":1}]`)
	f.Fuzz(func(t *testing.T, text string) {
		document, err := token.ParseDocument(token.NewSecret(text))
		if err != nil {
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("the error shows the value: %v", err)
			}
			return
		}
		if document.Connection.IsZero() || document.AccessToken.IsZero() || document.ExpiresAt.IsZero() {
			t.Errorf("%q is accepted as %+v", text, document)
		}
		once, err := document.Encode()
		if err != nil {
			t.Fatalf("%q is read and cannot be written: %v", text, err)
		}
		again, err := token.ParseDocument(once)
		if err != nil {
			t.Fatalf("%q is written so that it cannot be read: %v", text, err)
		}
		if twice, err := again.Encode(); err != nil || twice != once {
			t.Errorf("%q is not written the same twice: %v", text, err)
		}
	})
}

func FuzzParseConnection(f *testing.F) {
	for _, text := range []string{"sandbox/acme", "sandbox/acme/x", "/", "a/..", "A/b", "a/b\n", "-a/b",
		strings.Repeat("a", 63) + "/" + strings.Repeat("b", 64)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := token.ParseConnection(text)
		if err != nil {
			return
		}
		if c.String() != text || strings.ContainsAny(text, "#\\. \n\r\x00") || strings.Count(text, "/") != 1 {
			t.Errorf("%q is accepted as %q", text, c)
		}
	})
}
