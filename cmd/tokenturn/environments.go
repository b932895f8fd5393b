package main

import (
	"context"
	"slices"

	"github.com/tokenturn/tokenturn/pkg/procore"
)

// onePair are Procore's environments that share one client id and secret. The
// On-Demand sandboxes are production with company ids of their own.
var onePair = map[string]string{"production": "production", "monthly-sandbox": "production"}

// checkOtherEnvironments refuses credentials that are stored for another one of Procore's
// environments, on another login host, which has a pair of its own.
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
			return exitf(usage, "nothing was stored: these are the credentials of %s, and %s has a client id and secret of "+
				"its own; take those from the Developer Portal", e.Name, environment)
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
