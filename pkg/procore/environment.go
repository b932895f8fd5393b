package procore

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// OutOfBand is the redirect URI of installed applications: the person is shown
// the code instead of being sent anywhere.
const OutOfBand = "urn:ietf:wg:oauth:2.0:oob"

// Environment is one of Procore's own environments.
type Environment struct {
	Name     string
	LoginURL string // base of /oauth/...
	APIURL   string // base of /rest/...
}

// Environments lists Procore's environments as its page "Development
// Environments" and its Federal Zone overview name them. Production and the
// monthly sandbox share one pair of client id and secret; the others have
// their own. Any other name is a custom environment: its URLs come from its
// credentials, and the package comment says which servers it may name.
func Environments() []Environment {
	return []Environment{
		{"production", "https://login.procore.com", "https://api.procore.com"},
		{"sandbox", "https://login-sandbox.procore.com", "https://sandbox.procore.com"},
		{"monthly-sandbox", "https://login-sandbox-monthly.procore.com", "https://api-monthly.procore.com"},
		{"federal", "https://login.procoregov.com", "https://api.procoregov.com"},
	}
}

// find returns Procore's environment of that name, or one without URLs.
func find(name string) Environment {
	for _, e := range Environments() {
		if e.Name == name {
			return e
		}
	}
	return Environment{Name: name}
}

// Application completes the credentials with the hosts of the environment and
// checks the result. The error joins every problem found, names the field of
// each, and contains no secret.
func (c Credentials) Application(environment string) (rotation.Application, error) {
	e := find(environment)
	app := rotation.Application{
		Environment: environment, ClientID: c.ClientID, ClientSecret: c.ClientSecret, SecondSecret: c.SecondSecret,
		RedirectURI: c.RedirectURI,
		LoginURL:    strings.TrimRight(either(c.LoginURL, e.LoginURL), "/"),
		APIURL:      strings.TrimRight(either(c.APIURL, e.APIURL), "/"),
	}
	if err := check(app); err != nil {
		return rotation.Application{}, err
	}
	return app, nil
}

func either(override, usual string) string {
	if override != "" {
		return override
	}
	return usual
}

func check(app rotation.Application) error {
	_, err := token.ParseEnvironment(app.Environment)
	problems := []error{
		err,
		checkWord("client_id", app.ClientID),
		checkWord("client_secret", app.ClientSecret.Reveal()),
		checkSecond(app),
		checkRedirectURI(app.RedirectURI),
		checkBase("login_url", app.LoginURL, app.Environment),
		checkBase("api_url", app.APIURL, app.Environment),
	}
	return errors.Join(problems...)
}

// checkWord refuses what cannot be a client id or secret (RFC 6749 appendix A),
// and the results of two common mistakes: an empty value and a redacted one.
func checkWord(field, value string) error {
	switch {
	case value == "":
		return fmt.Errorf("%s is missing", field)
	case value == token.NewSecret(value).String():
		return fmt.Errorf("%s is a redacted text, not the value itself", field)
	case !visible(value):
		return fmt.Errorf("%s contains a space, a line break or another character that is not visible ASCII", field)
	}
	return nil
}

// checkSecond checks the second client secret, which may be missing.
func checkSecond(app rotation.Application) error {
	switch {
	case app.SecondSecret.IsZero():
		return nil
	case app.SecondSecret == app.ClientSecret:
		return errors.New("second_client_secret is the same as client_secret")
	}
	return checkWord("second_client_secret", app.SecondSecret.Reveal())
}

func visible(text string) bool {
	for i := range len(text) {
		if text[i] <= ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

// checkRedirectURI follows RFC 6749 section 3.1.2: absolute, without a
// fragment. Procore's portal takes plain http for loopback addresses only.
func checkRedirectURI(text string) error {
	switch {
	case text == "":
		return fmt.Errorf("redirect_uri is missing: give one that the app has registered, or %s", OutOfBand)
	case text == OutOfBand:
		return nil
	}
	u, err := parseHTTP("redirect_uri", text)
	if err == nil && hasFragment(u, text) {
		err = errors.New("redirect_uri must not have a fragment (#...)")
	}
	return err
}

func checkBase(field, text, environment string) error {
	if text == "" {
		return fmt.Errorf("%s is missing: %q is not one of Procore's environments, so it needs login_url and api_url of "+
			"a server that answers as Procore's does (JSON, client credentials in the body, application.uid in token info); "+
			"tokenturn supports no other servers", field, environment)
	}
	u, err := parseHTTP(field, text)
	if err == nil && (u.RawQuery != "" || u.ForceQuery || hasFragment(u, text)) {
		err = fmt.Errorf("%s must not have a query or a fragment", field)
	}
	return err
}

func hasFragment(u *url.URL, text string) bool {
	return u.Fragment != "" || strings.Contains(text, "#")
}

// parseHTTP accepts https, and http on a loopback address. Its errors never quote
// the text, which may contain a password.
func parseHTTP(field, text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || !visible(text) || u.Opaque != "" || u.Hostname() == "":
		return nil, fmt.Errorf("%s is not a URL such as https://login.example.com", field)
	case u.User != nil:
		return nil, fmt.Errorf("%s must not have a user name or password in it", field)
	case u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()):
		return u, nil
	}
	return nil, fmt.Errorf("%s must begin with https:// (http:// is for localhost, 127.0.0.1 and [::1] only)", field)
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback()
}
