package procore

import (
	"net/url"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// AuthorizeURL is the address of the page on which a person authorizes the app
// (RFC 6749 section 4.1.1). codeChallenge is an S256 challenge (RFC 7636
// section 4.3); if it is empty, PKCE is left out. An empty state is left out
// too, which is safe in the out-of-band flow only. The address contains the
// state, so it must not be logged.
func AuthorizeURL(app rotation.Application, redirectURI, state, codeChallenge string) string {
	query := url.Values{
		"response_type": {"code"},
		"client_id":     {app.ClientID},
		"redirect_uri":  {redirectURI},
	}
	if state != "" {
		query.Set("state", state)
	}
	if codeChallenge != "" {
		query.Set("code_challenge", codeChallenge)
		query.Set("code_challenge_method", "S256")
	}
	return app.LoginURL + "/oauth/authorize?" + query.Encode()
}
