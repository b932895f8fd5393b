package rotationtest

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// disclosesNothing is I13: no secret is in anything that was logged, answered or sent, nor
// in the plaintext parts of stored data. The secret store has access tokens, for its
// readers, and no other secret.
func disclosesNothing(b *Harness) error {
	var open, secrets strings.Builder
	open.WriteString(b.Log.String())
	for _, e := range b.Journal.Entries() {
		switch effect := e.Effect.(type) {
		case Wrote:
			open.Write(effect.text)
			open.Write(encode(effect.Change.Mark))
			open.Write(encode(effect.Change.History))
		case Responded:
			open.Write(effect.text)
			open.Write(effect.TokenResponse.Sealed)
		case Queued:
			open.Write(encode(effect.Request))
		case Noticed:
			open.Write(encode(effect.Notice))
		case Stored:
			open.WriteString(effect.Version.ID)
			secrets.WriteString(effect.Version.Value.Reveal())
		}
		open.WriteByte('\n')
		secrets.WriteByte('\n')
	}
	access, others := b.Issuer.Secrets()
	for _, place := range []struct {
		name, text string
		secrets    []token.Secret
	}{
		{"what was logged, sent or kept in the ledger", open.String(), append(access, others...)},
		{"the secret store", secrets.String(), others},
	} {
		if secret, form := firstDisclosed(place.text, place.secrets); form != "" {
			return fmt.Errorf("I13 is broken: the secret with fingerprint %s is, %s, in %s",
				secret.Fingerprint(), form, place.name)
		}
	}
	return nil
}

// Discloses returns the form in which the text contains the secret: as it is, escaped for
// a URL or JSON, or as hexadecimal or base64, also as a part of something longer. Empty:
// the text does not contain it.
func Discloses(text string, secret token.Secret) (form string) {
	_, form = firstDisclosed(text, []token.Secret{secret})
	return form
}

// firstDisclosed is Discloses for many secrets. The secrets of the fakes begin alike, so it
// searches a long text for a few beginnings only.
func firstDisclosed(text string, secrets []token.Secret) (token.Secret, string) {
	begins := map[string]bool{}
	beginsWith := func(form string, n int) bool {
		beginning := form[:min(n, len(form))]
		there, known := begins[beginning]
		if !known {
			there = strings.Contains(text, beginning)
			begins[beginning] = there
		}
		return there
	}
	for _, secret := range secrets {
		for _, form := range formsOf(secret) {
			if beginsWith(form.text, 6) && beginsWith(form.text, 8) && strings.Contains(text, form.text) {
				return secret, form.name
			}
		}
	}
	return token.Secret{}, ""
}

type secretForm struct{ name, text string }

// knownForms caches the results of formsOf, because each run of the explorer has the same
// secrets.
var knownForms sync.Map

// formsOf lists the forms that the secret may have.
func formsOf(secret token.Secret) []secretForm {
	raw := secret.Reveal()
	if raw == "" {
		return nil
	}
	if known, ok := knownForms.Load(raw); ok {
		return known.([]secretForm)
	}
	quoted := string(encode(raw))
	forms := []secretForm{
		{"as it is", raw},
		{"escaped for a query", url.QueryEscape(raw)},
		{"escaped for a path", url.PathEscape(raw)},
		{"escaped for JSON", quoted[1 : len(quoted)-1]},
		{"in hexadecimal", hex.EncodeToString([]byte(raw))},
		{"in base64", insideBase64(base64.RawStdEncoding, raw, 0)},
		{"in base64", insideBase64(base64.RawStdEncoding, raw, 1)},
		{"in base64", insideBase64(base64.RawStdEncoding, raw, 2)},
		{"in base64", insideBase64(base64.RawURLEncoding, raw, 0)},
		{"in base64", insideBase64(base64.RawURLEncoding, raw, 1)},
		{"in base64", insideBase64(base64.RawURLEncoding, raw, 2)},
	}
	knownForms.Store(raw, forms)
	return forms
}

// insideBase64 is raw within the base64 form of a longer text, if shift bytes of a group of
// three precede it. It leaves out the characters at both ends, which carry bits of the
// neighboring bytes.
func insideBase64(encoding *base64.Encoding, raw string, shift int) string {
	text := encoding.EncodeToString([]byte(strings.Repeat("x", shift) + raw))
	from := []int{0, 2, 3}[shift]
	to := len(text)
	if (shift+len(raw))%3 != 0 {
		to--
	}
	return text[from:to]
}
