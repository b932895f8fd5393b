package main

import (
	"context"
	"slices"

	"github.com/tokenturn/tokenturn/pkg/procore"
)

// customEnvironments says which servers a custom environment can be. Every place that
// offers one shows it.
const customEnvironments = `Custom environments work with servers that behave as Procore's do, which run Doorkeeper:
- LOGIN-URL/oauth/authorize is the authorization page.
- The token endpoint, LOGIN-URL/oauth/token, accepts client id and secret in a JSON body and
  responds in JSON.
- GET LOGIN-URL/oauth/token/info names the app as application.uid.
- GET API-URL/rest/v1.0/me responds in JSON.
- POST LOGIN-URL/oauth/revoke accepts a form with the token, client id and secret. Without
  it, revocations cannot be confirmed.
tokenturn does not support other OAuth providers. A server that refuses credentials in the
body (invalid_client) fails the check, and nothing is stored. If a server lacks one of the
two GET requests, tokenturn saves each consent but cannot check it, and the connection does
not become active. Imports and service accounts do not depend on that check. From a token
response that is not JSON, tokenturn uses the refresh token if there is exactly one, and
sends a notice; it cannot use any other such response.`

// onePair are Procore's environments that share one client id and secret. The
// On-Demand sandboxes are production with other company ids.
var onePair = map[string]string{"production": "production", "monthly-sandbox": "production"}

// checkOtherEnvironments refuses credentials that are stored for another one of Procore's
// environments on another login host: each has its own.
func (in *installation) checkOtherEnvironments(ctx context.Context, environment string,
	credentials procore.Credentials) error {
	if _, own := procoreEnvironment(environment); !own {
		return nil
	}
	app, err := credentials.Application(environment)
	if err != nil {
		return err
	}
	for _, e := range procore.Environments() {
		if e.Name == environment || onePair[e.Name] != "" && onePair[e.Name] == onePair[environment] {
			continue
		}
		stored, err := in.apps.Application(ctx, e.Name)
		if err != nil || stored.LoginURL == app.LoginURL {
			continue
		}
		if stored.ClientID == app.ClientID || stored.ClientSecret == app.ClientSecret {
			return exitf(usage, "nothing was stored: these are the credentials of %s, and %s has its own client id and "+
				"secret; copy those from the Developer Portal", e.Name, environment)
		}
	}
	return nil
}

func procoreEnvironment(name string) (procore.Environment, bool) {
	all := procore.Environments()
	i := slices.IndexFunc(all, func(e procore.Environment) bool { return e.Name == name })
	if i < 0 {
		return procore.Environment{}, false
	}
	return all[i], true
}
