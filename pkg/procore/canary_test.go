package procore

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/url"
	"strings"
	"testing"
)

// noCanary searches every printable form of the values for the word that every
// secret of these tests contains, plain and encoded.
func noCanary(t *testing.T, values ...any) {
	t.Helper()
	noneOf(t, []string{"canary"}, values...)
}

func noneOf(t *testing.T, secrets []string, values ...any) {
	t.Helper()
	for _, value := range values {
		encoded, _ := json.Marshal(value)
		text := fmt.Sprintf("%v\n%+v\n%#v\n%s\n", value, value, value, encoded)
		for _, secret := range secrets {
			quoted, _ := json.Marshal(secret)
			for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret)), url.QueryEscape(secret),
				string(quoted)} {
				if secret != "" && strings.Contains(text, form) {
					t.Errorf("a secret is in the text of %T: %s", value, text)
				}
			}
		}
	}
}

// discard is the log of servers in which a test provokes errors.
func discard() *log.Logger { return log.New(io.Discard, "", 0) }
