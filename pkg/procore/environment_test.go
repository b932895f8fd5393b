package procore

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func credentials() Credentials {
	return Credentials{ClientID: "id-1", ClientSecret: token.NewSecret("canary-secret"),
		RedirectURI: "https://app.example.com/callback/sandbox"}
}

func TestApplication(t *testing.T) {
	custom := credentials()
	custom.LoginURL, custom.APIURL = "http://127.0.0.1:8080/", "https://api.example.com/procore"
	moved := credentials()
	moved.LoginURL = "https://sandbox.procore.com"
	outOfBand := credentials()
	outOfBand.RedirectURI = OutOfBand
	local := credentials()
	local.RedirectURI = "http://localhost"
	query := credentials()
	query.RedirectURI = "https://app.example.com/callback?x=1"

	for name, c := range map[string]struct {
		environment string
		credentials Credentials
		login, api  string
	}{
		"production": {"production", credentials(), "https://login.procore.com",
			"https://api.procore.com"},
		"sandbox": {"sandbox", credentials(), "https://login-sandbox.procore.com",
			"https://sandbox.procore.com"},
		"monthly": {"monthly-sandbox", credentials(), "https://login-sandbox-monthly.procore.com",
			"https://api-monthly.procore.com"},
		"federal": {"federal", credentials(), "https://login.procoregov.com",
			"https://api.procoregov.com"},
		"custom":            {"demo", custom, "http://127.0.0.1:8080", "https://api.example.com/procore"},
		"one host replaced": {"sandbox", moved, "https://sandbox.procore.com", "https://sandbox.procore.com"},
		"out of band": {"sandbox", outOfBand, "https://login-sandbox.procore.com",
			"https://sandbox.procore.com"},
		"this machine": {"sandbox", local, "https://login-sandbox.procore.com",
			"https://sandbox.procore.com"},
		"a redirect URI may have a query": {"sandbox", query, "https://login-sandbox.procore.com",
			"https://sandbox.procore.com"},
	} {
		t.Run(name, func(t *testing.T) {
			stored, err := c.credentials.Encode()
			if err != nil {
				t.Fatal(err)
			}
			app, err := ParseApplication(c.environment, stored)
			want := rotation.Application{Environment: c.environment, ClientID: "id-1",
				ClientSecret: token.NewSecret("canary-secret"),
				RedirectURI:  c.credentials.RedirectURI, LoginURL: c.login, APIURL: c.api}
			if err != nil || app != want {
				t.Errorf("got %+v, %v", app, err)
			}
			noCanary(t, app, c.credentials, stored)
		})
	}
}

func TestApplicationProblems(t *testing.T) {
	for name, c := range map[string]struct {
		change      func(*Credentials)
		environment string
		want        []string
	}{
		"custom without URLs": {func(*Credentials) {}, "demo", []string{"login_url is missing", "api_url is missing"}},
		"all at once": {func(c *Credentials) { *c = Credentials{LoginURL: "ftp://x", APIURL: "http://api.example.com"} },
			"Bad Name",
			[]string{"environment", "client_id is missing", "client_secret is missing", "redirect_uri is missing",
				"login_url must begin", "api_url must begin"}},
		"http elsewhere": {func(c *Credentials) { c.LoginURL = "http://login.example.com" }, "sandbox",
			[]string{"login_url must begin with https"}},
		"http to a look-alike": {func(c *Credentials) { c.LoginURL = "http://localhost.example.com" }, "sandbox",
			[]string{"login_url must begin with https"}},
		"password in a URL": {func(c *Credentials) { c.LoginURL = "https://pat:canary@login.example.com" }, "sandbox",
			[]string{"login_url must not have a user name"}},
		"query in a URL": {func(c *Credentials) { c.APIURL = "https://api.example.com?canary" }, "sandbox",
			[]string{"api_url must not have a query"}},
		"empty query in a URL": {func(c *Credentials) { c.APIURL = "https://api.example.com?" }, "sandbox",
			[]string{"api_url must not have a query"}},
		"fragment in a URL": {func(c *Credentials) { c.APIURL = "https://api.example.com#" }, "sandbox",
			[]string{"api_url must not have a query or a fragment"}},
		"not a URL": {func(c *Credentials) { c.APIURL = "https://api example.com/canary" }, "sandbox",
			[]string{"api_url is not a URL"}},
		"no host": {func(c *Credentials) { c.APIURL = "https:///canary" }, "sandbox",
			[]string{"api_url is not a URL"}},
		"no scheme": {func(c *Credentials) { c.APIURL = "api.example.com" }, "sandbox",
			[]string{"api_url is not a URL"}},
		"redirect with a fragment": {func(c *Credentials) { c.RedirectURI = "https://app.example.com/#x" }, "sandbox",
			[]string{"redirect_uri must not have a fragment"}},
		"redirect over http": {func(c *Credentials) { c.RedirectURI = "http://app.example.com/" }, "sandbox",
			[]string{"redirect_uri must begin with https"}},
		"a secret with a newline": {func(c *Credentials) { c.ClientSecret = token.NewSecret("canary\n") }, "sandbox",
			[]string{"client_secret contains"}},
		"a redacted secret": {func(c *Credentials) { c.ClientSecret = token.NewSecret(token.Secret{}.String()) }, "sandbox",
			[]string{"client_secret is a redacted text"}},
	} {
		t.Run(name, func(t *testing.T) {
			given := credentials()
			c.change(&given)
			app, err := given.Application(c.environment)
			if err == nil || app != (rotation.Application{}) {
				t.Fatalf("accepted: %+v", app)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q:\n%v", want, err)
				}
			}
			if got := strings.Count(err.Error(), "\n") + 1; got != len(c.want) {
				t.Errorf("%d problems instead of %d:\n%v", got, len(c.want), err)
			}
			noCanary(t, err.Error())
		})
	}
}

func TestCredentialsEncoding(t *testing.T) {
	stored, err := credentials().Encode()
	if want := `{"client_id":"id-1","redirect_uri":"https://app.example.com/callback/sandbox","client_secret":"canary-secret"}`; err != nil || stored.Reveal() != want {
		t.Errorf("stored: %s, %v", stored.Reveal(), err)
	}
	if back, err := ParseCredentials(stored); err != nil || back != credentials() {
		t.Errorf("read back: %+v, %v", back, err)
	}
	plain, err := json.Marshal(credentials())
	if err != nil {
		t.Fatal(err)
	}
	noCanary(t, string(plain))
	for _, broken := range []string{"", "canary", `["canary"]`, `{"client_id":"canary"`, `{"client_id":{"canary":1}}`} {
		_, err := ParseCredentials(token.NewSecret(broken))
		if err == nil {
			t.Errorf("%q was accepted", broken)
			continue
		}
		noCanary(t, err.Error())
	}
}

func TestAuthorizeURL(t *testing.T) {
	app, err := credentials().Application("sandbox")
	if err != nil {
		t.Fatal(err)
	}
	got, err := url.Parse(AuthorizeURL(app, "https://app.example.com/c?x=1&y", "a state+/=&", "challenge"))
	if err != nil || got.Scheme+"://"+got.Host+got.Path != "https://login-sandbox.procore.com/oauth/authorize" {
		t.Fatalf("%v, %v", got, err)
	}
	want := url.Values{"response_type": {"code"}, "client_id": {"id-1"},
		"redirect_uri": {"https://app.example.com/c?x=1&y"},
		"state":        {"a state+/=&"}, "code_challenge": {"challenge"}, "code_challenge_method": {"S256"}}
	if got.Query().Encode() != want.Encode() {
		t.Errorf("query %v", got.Query())
	}
	const plain = "https://login-sandbox.procore.com/oauth/authorize?client_id=id-1" +
		"&redirect_uri=urn%3Aietf%3Awg%3Aoauth%3A2.0%3Aoob&response_type=code"
	if bare := AuthorizeURL(app, OutOfBand, "", ""); bare != plain {
		t.Errorf("without state and challenge: %s", bare)
	}
}
