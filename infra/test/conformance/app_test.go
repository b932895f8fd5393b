//go:build conformance

package conformance

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// TestAppCredentialsAreStoredInAWS: `app set` makes the secret, and replaces it,
// and says without telling the secret what is stored.
func TestAppCredentialsAreStoredInAWS(t *testing.T) {
	t.Parallel()
	in := install(t, startCloud(t), startProvider(t, 0, 10*time.Minute), "appset", patient)
	credentials := map[string]string{"client_id": in.provider.clientID, "client_secret": in.provider.clientSecret,
		"login_url": in.tap.loginURL, "api_url": in.tap.loginURL}
	for _, redirect := range []string{publicURL + "/callback/first", redirectURI} {
		credentials["redirect_uri"] = redirect
		value, err := json.Marshal(credentials)
		in.must(err)
		in.operateWith(value, "app", "set", "another", "--stdin")
		var shown struct {
			ClientID    string `json:"client_id"`
			RedirectURI string `json:"redirect_uri"`
		}
		in.must(json.Unmarshal(in.operate("app", "show", "another"), &shown))
		if shown.ClientID != in.provider.clientID || shown.RedirectURI != redirect {
			t.Errorf("stored is %+v, want %s with %s", shown, in.provider.clientID, redirect)
		}
	}
	if strings.Contains(in.logs.String(), in.provider.clientSecret) {
		t.Error("the command says the client secret")
	}
}
