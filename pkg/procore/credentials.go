package procore

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Credentials are an app's credentials for one environment as they are stored,
// one JSON object per environment. Marshalling them with encoding/json redacts
// the secret; Encode gives the bytes to store.
type Credentials struct {
	ClientID     string       `json:"client_id"`
	ClientSecret token.Secret `json:"client_secret"`
	// SecondSecret is used in place of ClientSecret once the server refuses that.
	SecondSecret token.Secret `json:"second_client_secret,omitzero"`
	// RedirectURI is what is sent to the authorization endpoint: one that the
	// app has registered, or OutOfBand.
	RedirectURI string `json:"redirect_uri"`
	// LoginURL and APIURL replace the hosts of a Procore environment and are
	// required for a custom one; the package comment says what that one must answer.
	LoginURL string `json:"login_url,omitempty"`
	APIURL   string `json:"api_url,omitempty"`
	// Name and Logo are shown on the consent page. Name is the app's name in the Developer
	// Portal; Logo is a data: URL. Nothing else depends on them.
	Name string `json:"name,omitempty"`
	Logo string `json:"logo,omitempty"`
}

// ParseCredentials reads what Encode wrote, or what a person put there in that
// form. Unknown fields are ignored. It does not check the fields; Application
// does. The error contains nothing of the value.
func ParseCredentials(value token.Secret) (Credentials, error) {
	var c Credentials
	if err := json.Unmarshal([]byte(value.Reveal()), &c); err != nil {
		return Credentials{}, errors.New("the app credentials are not the JSON object with client_id, " +
			"client_secret and redirect_uri that `tokenturn app set` writes")
	}
	return c, nil
}

// ParseApplication reads stored credentials and completes them for the
// environment: ParseCredentials, then Credentials.Application.
func ParseApplication(environment string, value token.Secret) (rotation.Application, error) {
	c, err := ParseCredentials(value)
	if err != nil {
		return rotation.Application{}, err
	}
	return c.Application(environment)
}

// Encode gives the JSON to store, client secret included.
func (c Credentials) Encode() (token.Secret, error) {
	type open struct {
		Credentials
		ClientSecret string `json:"client_secret"` // hides the redacting field
		SecondSecret string `json:"second_client_secret,omitempty"`
	}
	bytes, err := json.Marshal(open{c, c.ClientSecret.Reveal(), c.SecondSecret.Reveal()})
	if err != nil {
		return token.Secret{}, fmt.Errorf("encoding app credentials: %w", err)
	}
	return token.NewSecret(string(bytes)), nil
}
