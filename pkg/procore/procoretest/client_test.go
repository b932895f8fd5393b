package procoretest_test

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
)

const callback = "https://app.example.com/callback"

// client talks to a stand-in as an app would.
type client struct {
	*procoretest.Server
	t   *testing.T
	app procoretest.App
}

func newClient(t *testing.T, options ...procoretest.Option) client {
	t.Helper()
	server := procoretest.New(options...)
	t.Cleanup(server.Close)
	return client{server, t, server.NewApp(callback, callback+"?own=1", procoretest.OutOfBand)}
}

// answer is the server's answer.
type answer struct {
	status int
	header http.Header
	text   string
	fields map[string]any
}

func (a answer) get(name string) string { text, _ := a.fields[name].(string); return text }

func (c client) do(req *http.Request, err error) answer {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, text: string(body)}
	_ = json.Unmarshal(body, &a.fields)
	return a
}

func (c client) post(path string, fields map[string]string) answer {
	c.t.Helper()
	body, err := json.Marshal(fields)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.postBody(path, "application/json", string(body))
}

func (c client) postBody(path, contentType, body string) answer {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), "POST", c.URL+path, strings.NewReader(body))
	if err == nil {
		req.Header.Set("Content-Type", contentType)
	}
	return c.do(req, err)
}

func (c client) get(path, access string, header ...string) answer {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), "GET", c.URL+path, nil)
	if err == nil {
		req.Header.Set("Authorization", "Bearer "+access)
		if len(header) == 2 {
			req.Header.Set(header[0], header[1])
		}
	}
	return c.do(req, err)
}

// with adds the client credentials and then the changes to fields; a change to "" leaves a field out.
func (c client) with(fields map[string]string, changes ...string) map[string]string {
	all := map[string]string{"client_id": c.app.ClientID, "client_secret": c.app.ClientSecret.Reveal()}
	maps.Copy(all, fields)
	for i := 0; i < len(changes); i += 2 {
		all[changes[i]] = changes[i+1]
		if changes[i+1] == "" {
			delete(all, changes[i])
		}
	}
	return all
}

func (c client) refresh(token string, changes ...string) answer {
	c.t.Helper()
	return c.post("/oauth/token", c.with(map[string]string{"grant_type": "refresh_token", "refresh_token": token},
		changes...))
}

func (c client) exchange(code string, changes ...string) answer {
	c.t.Helper()
	return c.post("/oauth/token", c.with(map[string]string{"grant_type": "authorization_code", "code": code,
		"redirect_uri": callback}, changes...))
}

func (c client) authorizeURL(changes ...string) string {
	query := url.Values{"response_type": {"code"}, "client_id": {c.app.ClientID}, "redirect_uri": {callback},
		"state": {"st&te+/="}}
	for i := 0; i < len(changes); i += 2 {
		query.Set(changes[i], changes[i+1])
	}
	return c.URL + "/oauth/authorize?" + query.Encode()
}

func (c client) consent(changes ...string) url.Values {
	c.t.Helper()
	redirect, err := c.Consent(c.authorizeURL(changes...), "pat@example.com", true)
	if err != nil {
		c.t.Fatal(err)
	}
	u, err := url.Parse(redirect)
	if err != nil {
		c.t.Fatal(err)
	}
	return u.Query()
}

func (c client) pair() (access, refresh string) {
	c.t.Helper()
	pair, err := c.Issue(c.app.ClientID, "pat@example.com")
	if err != nil {
		c.t.Fatal(err)
	}
	return pair.AccessToken.Reveal(), pair.RefreshToken.Reveal()
}

// refused checks an error of the token endpoint.
func (c client) refused(got answer, status int, code string) {
	c.t.Helper()
	if got.status != status || got.get("error") != code || got.get("error_description") == "" ||
		!strings.Contains(got.header.Get("WWW-Authenticate"), `error="`+code+`"`) {
		c.t.Errorf("got %d %s; want %d %s", got.status, got.text, status, code)
	}
}

func (c client) alive(access string, want bool) {
	c.t.Helper()
	status := c.get("/rest/v1.0/me", access).status
	if (status == 200) != want || !want && status != 401 {
		c.t.Errorf("/me: %d", status)
	}
}
