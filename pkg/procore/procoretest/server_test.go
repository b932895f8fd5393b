package procoretest_test

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/token"
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

// answer is what came back.
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
	return c.post("/oauth/token", c.with(map[string]string{"grant_type": "refresh_token", "refresh_token": token}, changes...))
}

func (c client) exchange(code string, changes ...string) answer {
	c.t.Helper()
	return c.post("/oauth/token", c.with(map[string]string{"grant_type": "authorization_code", "code": code, "redirect_uri": callback}, changes...))
}

func (c client) authorizeURL(changes ...string) string {
	query := url.Values{"response_type": {"code"}, "client_id": {c.app.ClientID}, "redirect_uri": {callback}, "state": {"st&te+/="}}
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

func TestConsent(t *testing.T) {
	c := newClient(t)
	back := c.consent()
	if back.Get("state") != "st&te+/=" || back.Get("code") == "" {
		t.Errorf("back with %v", back)
	}
	own := c.consent("redirect_uri", callback+"?own=1")
	if own.Get("own") != "1" || own.Get("code") == "" {
		t.Errorf("back with %v", own)
	}
	redirect, err := c.Consent(c.authorizeURL(), "pat@example.com", false)
	if err != nil || !strings.HasPrefix(redirect, callback+"?error=access_denied&error_description=") || !strings.HasSuffix(redirect, "&state=st%26te%2B%2F%3D") {
		t.Errorf("denied: %s, %v", redirect, err)
	}
	if _, err := c.Consent(c.authorizeURL(), "nobody@example.com", true); err == nil {
		t.Error("nobody consented")
	}
}

func TestOutOfBand(t *testing.T) {
	c := newClient(t)
	page, err := c.Consent(c.authorizeURL("redirect_uri", procoretest.OutOfBand), "pat@example.com", true)
	if err != nil || !strings.HasPrefix(page, c.URL+"/oauth/authorize/native?code=") {
		t.Fatalf("%s, %v", page, err)
	}
	code := strings.TrimPrefix(page, c.URL+"/oauth/authorize/native?code=")
	shown := c.get("/oauth/authorize/native?code="+code, "").text
	if !strings.Contains(shown, "<title>Authorization code:</title>") || !strings.Contains(shown, `<code id="authorization_code">`+code+"</code>") {
		t.Error(shown)
	}
	if got := c.exchange(code, "redirect_uri", procoretest.OutOfBand); got.status != 200 {
		t.Errorf("exchange: %s", got.text)
	}
	if _, err := c.Consent(c.authorizeURL("redirect_uri", procoretest.OutOfBand), "pat@example.com", false); err == nil {
		t.Error("denied out of band, but no error")
	}
}

func TestAuthorizationErrorsStayOnThePage(t *testing.T) {
	c := newClient(t)
	for name, address := range map[string]string{
		"unknown client":            c.authorizeURL("client_id", "x"),
		"unregistered redirect URI": c.authorizeURL("redirect_uri", callback+"/"),
		"implicit grant":            c.authorizeURL("response_type", "token"),
		"scope":                     c.authorizeURL("scope", "all"),
		"plain PKCE":                c.authorizeURL("code_challenge", strings.Repeat("x", 43), "code_challenge_method", "plain"),
		"PKCE without a method":     c.authorizeURL("code_challenge", strings.Repeat("x", 43)),
		"challenge too short":       c.authorizeURL("code_challenge", "x", "code_challenge_method", "S256"),
		"a parameter twice":         c.authorizeURL() + "&state=2",
	} {
		got := c.get(strings.TrimPrefix(address, c.URL), "")
		if got.status != 400 || !strings.Contains(got.text, "An error has occurred") || got.header.Get("Location") != "" {
			t.Errorf("%s: %d %s", name, got.status, got.text)
		}
	}
}

func TestPagesAreForTheirOwnBrowser(t *testing.T) {
	c := newClient(t)
	query := strings.TrimPrefix(c.authorizeURL(), c.URL+"/oauth/authorize?")
	form := url.Values{"request": {query}, "decision": {"allow"}, "login": {"pat@example.com"}, "password": {"correct horse"}, "csrf": {""}}.Encode()
	for _, path := range []string{"/oauth/authorize", "/oauth/login"} {
		if got := c.postBody(path, "application/x-www-form-urlencoded", form); got.status != 400 || got.header.Get("Location") != "" {
			t.Errorf("%s without a session: %d", path, got.status)
		}
	}
	page := c.get("/oauth/authorize?"+query, "")
	if page.status != 200 || !strings.Contains(page.text, "This is not Procore.") || page.header.Get("Cache-Control") != "no-store" ||
		!strings.Contains(page.header.Get("Content-Security-Policy"), "frame-ancestors 'none'") {
		t.Errorf("%d %v\n%s", page.status, page.header, page.text)
	}
	cookie := page.header.Get("Set-Cookie")
	if !strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Lax") {
		t.Errorf("cookie %s", cookie)
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", c.URL+"/oauth/authorize", strings.NewReader(form))
	if err == nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Cookie", cookie)
	}
	if got := c.do(req, err); got.status != 400 {
		t.Errorf("a form without the session's value: %d", got.status)
	}
}

func TestExchange(t *testing.T) {
	now := time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)
	c := newClient(t, procoretest.WithClock(func() time.Time { return now }))
	other := c.NewApp(callback)
	code := c.consent().Get("code")

	c.refused(c.exchange(code, "client_secret", "wrong"), 401, "invalid_client")
	c.refused(c.exchange("unknown", "client_secret", "wrong"), 401, "invalid_client")
	c.refused(c.exchange(code, "client_id", "", "client_secret", ""), 401, "invalid_client")
	c.refused(c.exchange(code, "client_id", other.ClientID, "client_secret", other.ClientSecret.Reveal()), 400, "invalid_grant")
	c.refused(c.exchange(code, "redirect_uri", ""), 400, "invalid_request")
	c.refused(c.exchange(code, "redirect_uri", callback+"?own=1"), 400, "invalid_grant")
	c.refused(c.exchange(code, "code", ""), 400, "invalid_request")
	c.refused(c.exchange(code, "grant_type", ""), 400, "invalid_request")
	c.refused(c.exchange(code, "grant_type", "password"), 400, "unsupported_grant_type")
	c.refused(c.exchange(code, "code_verifier", "one too many"), 400, "invalid_grant")

	got := c.exchange(code)
	if got.status != 200 || got.get("token_type") != "Bearer" || got.fields["expires_in"] != 5400.0 || got.fields["created_at"] != float64(now.Unix()) ||
		got.get("access_token") == "" || got.get("refresh_token") == "" || got.fields["scope"] != nil || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("after all these: %s", got.text)
	}
	c.refused(c.exchange(code), 400, "invalid_grant")
	c.alive(got.get("access_token"), true)

	late := c.consent().Get("code")
	now = now.Add(10 * time.Minute)
	c.refused(c.exchange(late), 400, "invalid_grant")
	if n := c.Presented()[token.NewSecret(code).Fingerprint()]; n != 8 {
		t.Errorf("the code was presented %d times", n)
	}
}

func TestPKCE(t *testing.T) {
	c := newClient(t)
	// The example of RFC 7636 appendix B.
	const verifier, challenge = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
	code := c.consent("code_challenge", challenge, "code_challenge_method", "S256").Get("code")
	c.refused(c.exchange(code), 400, "invalid_request")
	c.refused(c.exchange(code, "code_verifier", challenge), 400, "invalid_grant")
	if got := c.exchange(code, "code_verifier", verifier); got.status != 200 {
		t.Errorf("right verifier: %s", got.text)
	}
}

func TestRefreshRefusals(t *testing.T) {
	c := newClient(t)
	other := c.NewApp(callback)
	access, refresh := c.pair()
	c.refused(c.refresh("unknown"), 400, "invalid_grant")
	c.refused(c.refresh(access), 400, "invalid_grant")
	c.refused(c.refresh(""), 400, "invalid_request")
	c.refused(c.refresh(refresh, "client_secret", "wrong"), 401, "invalid_client")
	c.refused(c.refresh("unknown", "client_secret", "wrong"), 400, "invalid_grant")
	c.refused(c.refresh(refresh, "client_id", "", "client_secret", ""), 400, "invalid_grant")
	c.refused(c.refresh(refresh, "client_id", other.ClientID, "client_secret", other.ClientSecret.Reveal()), 400, "invalid_grant")
	c.refused(c.refresh(refresh, "scope", "all"), 400, "invalid_scope")
	if got := c.refresh(refresh, "redirect_uri", "https://elsewhere.example.com"); got.status != 200 {
		t.Errorf("after all these: %s", got.text)
	}
}

func TestPersonalities(t *testing.T) {
	t.Run("old pair dies at the refresh", func(t *testing.T) {
		c := newClient(t)
		access, refresh := c.pair()
		next := c.refresh(refresh)
		c.alive(access, false)
		c.refused(c.refresh(refresh), 400, "invalid_grant")
		c.alive(next.get("access_token"), true)
	})
	t.Run("old pair lives until first use", func(t *testing.T) {
		c := newClient(t, procoretest.With(procoretest.OldLivesUntilFirstUse))
		access, refresh := c.pair()
		next := c.refresh(refresh)
		c.alive(access, true)
		sibling := c.refresh(refresh)
		if sibling.status != 200 || sibling.get("refresh_token") == next.get("refresh_token") {
			t.Errorf("sibling: %s", sibling.text)
		}
		if got := c.get("/oauth/token/info", next.get("access_token")); got.status != 200 {
			t.Errorf("token info: %s", got.text)
		}
		c.alive(access, false)
		c.refused(c.refresh(refresh), 400, "invalid_grant")
		c.alive(sibling.get("access_token"), true)
	})
	t.Run("revoking the unused successor revives the old pair", func(t *testing.T) {
		c := newClient(t, procoretest.With(procoretest.OldLivesUntilFirstUse))
		access, refresh := c.pair()
		next := c.refresh(refresh)
		c.post("/oauth/revoke", c.with(map[string]string{"token": next.get("access_token")}))
		if c.Accepts(token.NewSecret(next.get("refresh_token"))) || !c.Accepts(token.NewSecret(refresh)) {
			t.Error("not so")
		}
		c.alive(access, true)
	})
	t.Run("reuse kills the family", func(t *testing.T) {
		c := newClient(t, procoretest.With(procoretest.ReuseKillsFamily))
		_, refresh := c.pair()
		_, stranger := c.pair()
		next := c.refresh(refresh)
		c.refused(c.refresh(refresh), 400, "invalid_grant")
		c.alive(next.get("access_token"), false)
		c.refused(c.refresh(next.get("refresh_token")), 400, "invalid_grant")
		if got := c.refresh(stranger); got.status != 200 {
			t.Errorf("another family: %s", got.text)
		}
	})
	t.Run("no new refresh token", func(t *testing.T) {
		c := newClient(t, procoretest.With(procoretest.NoNewRefreshToken))
		_, refresh := c.pair()
		for range 2 {
			if got := c.refresh(refresh); got.status != 200 || got.get("access_token") == "" || got.fields["refresh_token"] != nil {
				t.Errorf("%s", got.text)
			}
		}
	})
	t.Run("old release", func(t *testing.T) {
		c := newClient(t, procoretest.With(procoretest.OldRelease))
		_, refresh := c.pair()
		c.refused(c.refresh("unknown"), 401, "invalid_grant")
		c.refused(c.refresh(""), 401, "invalid_request")
		next := c.refresh(refresh)
		info := c.get("/oauth/token/info", next.get("access_token"))
		if next.get("token_type") != "bearer" || info.fields["expires_in_seconds"] == nil || info.fields["scopes"] == nil {
			t.Errorf("%s\n%s", next.text, info.text)
		}
		if got := c.post("/oauth/revoke", map[string]string{"token": next.get("access_token")}); got.status != 200 {
			t.Errorf("revocation: %d", got.status)
		}
		c.alive(next.get("access_token"), true)
	})
}

func TestLifetime(t *testing.T) {
	now := time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)
	c := newClient(t, procoretest.WithClock(func() time.Time { return now }), procoretest.WithLifetime(15*time.Minute),
		procoretest.With(procoretest.ExpiredSurviveRevocation, procoretest.OldLivesUntilFirstUse))
	access, refresh := c.pair()
	now = now.Add(15*time.Minute - time.Second)
	if got := c.get("/oauth/token/info", access); got.fields["expires_in"] != 1.0 {
		t.Errorf("%s", got.text)
	}
	now = now.Add(time.Second)
	c.alive(access, false)
	if got := c.get("/rest/v1.0/me", access); got.text != "" || !strings.Contains(got.header.Get("WWW-Authenticate"), "expired") {
		t.Errorf("%v %s", got.header, got.text)
	}
	if got := c.get("/oauth/token/info", access); got.status != 401 || got.get("error") != "invalid_token" || got.get("state") != "unauthorized" {
		t.Errorf("%s", got.text)
	}
	if got := c.post("/oauth/revoke", c.with(map[string]string{"token": access})); got.status != 200 || !c.Accepts(token.NewSecret(refresh)) {
		t.Errorf("revoking what has expired: %s", got.text)
	}
	c.SetLifetime(time.Hour)
	next := c.refresh(refresh)
	if next.fields["expires_in"] != 3600.0 {
		t.Errorf("%s", next.text)
	}
	now = now.Add(time.Hour)
	c.alive(next.get("access_token"), false) // expired, and yet a first use
	c.refused(c.refresh(refresh), 400, "invalid_grant")
}

func TestRevoke(t *testing.T) {
	c := newClient(t)
	other := c.NewApp(callback)
	access, refresh := c.pair()
	for name, fields := range map[string]map[string]string{
		"no credentials": {"token": access},
		"wrong secret":   c.with(map[string]string{"token": access}, "client_secret", "wrong"),
		"another client": {"token": access, "client_id": other.ClientID, "client_secret": other.ClientSecret.Reveal()},
	} {
		if got := c.post("/oauth/revoke", fields); got.status != 403 || got.get("error") != "unauthorized_client" {
			t.Errorf("%s: %d %s", name, got.status, got.text)
		}
	}
	c.alive(access, true)
	for _, which := range []string{refresh, refresh, "unknown"} {
		if got := c.post("/oauth/revoke", c.with(map[string]string{"token": which})); got.status != 200 || got.text != "{}" {
			t.Errorf("%d %s", got.status, got.text)
		}
	}
	c.alive(access, false)
}

func TestRequestFormats(t *testing.T) {
	c := newClient(t)
	form := func(refresh string) url.Values {
		return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}, "client_id": {c.app.ClientID}, "client_secret": {c.app.ClientSecret.Reveal()}}
	}
	_, refresh := c.pair()
	if got := c.postBody("/oauth/token", "application/x-www-form-urlencoded", form(refresh).Encode()); got.status != 200 {
		t.Errorf("form: %s", got.text)
	}
	_, refresh = c.pair()
	var multi bytes.Buffer
	multi.WriteString("--b\r\n")
	for name, values := range form(refresh) {
		multi.WriteString("Content-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + values[0] + "\r\n--b\r\n")
	}
	body := strings.TrimSuffix(multi.String(), "\r\n") + "--\r\n"
	if got := c.postBody("/oauth/token", "multipart/form-data; boundary=b", body); got.status != 200 {
		t.Errorf("multipart: %s", got.text)
	}
	_, refresh = c.pair()
	basic := func(values url.Values) answer {
		req, err := http.NewRequestWithContext(t.Context(), "POST", c.URL+"/oauth/token", strings.NewReader(values.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.SetBasicAuth(c.app.ClientID, c.app.ClientSecret.Reveal())
		}
		return c.do(req, err)
	}
	c.refused(basic(form(refresh)), 400, "invalid_request") // both ways at once
	if got := basic(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}); got.status != 200 {
		t.Errorf("basic: %s", got.text)
	}
	c.refused(c.postBody("/oauth/token", "text/plain", `{"grant_type":"refresh_token"}`), 400, "invalid_request")
	c.refused(c.postBody("/oauth/token?"+form(refresh).Encode(), "application/x-www-form-urlencoded", ""), 400, "invalid_request")
	c.refused(c.postBody("/oauth/token", "application/x-www-form-urlencoded", form(refresh).Encode()+"&refresh_token=2"), 400, "invalid_request")
	for _, broken := range []string{"{", form(refresh).Encode(), `{} {}`} {
		if got := c.postBody("/oauth/token", "application/json", broken); got.status != 400 || got.text != "" || got.header.Get("Content-Type") != "text/html" {
			t.Errorf("broken JSON: %d %v %s", got.status, got.header, got.text)
		}
	}
}

func TestMeAndCompanies(t *testing.T) {
	c := newClient(t)
	access, _ := c.pair()
	const company = "4264807"
	if got := c.get("/rest/v1.0/me", access); got.text != `{"id":160586,"login":"pat@example.com"}` {
		t.Errorf("%s", got.text)
	}
	if got := c.get("/rest/v1.0/me?company_id="+company, access, "Procore-Company-Id", company); got.get("name") != "Pat Example" {
		t.Errorf("%s", got.text)
	}
	if got := c.get("/rest/v1.0/me?company_id="+company, access); got.status != 400 || got.text != "Missing Procore-Company-Id header!" {
		t.Errorf("%d %s", got.status, got.text)
	}
	if got := c.get("/rest/v1.0/me?company_id=1", access, "Procore-Company-Id", "1"); got.status != 403 {
		t.Errorf("a company of others: %d %s", got.status, got.text)
	}
	c.Uninstall(c.app.ClientID, 4264807)
	if got := c.get("/rest/v1.0/me?company_id="+company, access, "Procore-Company-Id", company); got.status != 403 ||
		got.text != `{"errors":["App is not connected to this company."]}` {
		t.Errorf("uninstalled: %d %s", got.status, got.text)
	}
	if got := c.get("/rest/v1.0/companies", access); got.status != 200 || !strings.Contains(got.text, company) {
		t.Errorf("%s", got.text)
	}
	if got := c.get("/rest/v1.0/companies", "unknown"); got.status != 401 {
		t.Errorf("%d", got.status)
	}
}

func TestServiceAccount(t *testing.T) {
	c := newClient(t)
	ask := map[string]string{"grant_type": "client_credentials", "client_id": c.app.ClientID, "client_secret": c.app.ClientSecret.Reveal()}
	c.refused(c.post("/oauth/token", ask), 401, "unauthorized_client")
	c.app.ServiceAccount = []int64{42}
	c.Register(c.app)
	c.refused(c.post("/oauth/token", c.with(ask, "client_secret", "wrong")), 401, "invalid_client")
	got := c.post("/oauth/token", ask)
	access := got.get("access_token")
	if got.status != 200 || access == "" || got.fields["refresh_token"] != nil || got.fields["expires_in"] != 5400.0 {
		t.Fatalf("%d %v", got.status, got.fields)
	}
	if info := c.get("/oauth/token/info", access); info.status != 200 || info.fields["resource_owner_id"] != nil {
		t.Errorf("%s", info.text)
	}
	for _, path := range []string{"/rest/v1.0/me", "/rest/v1.0/companies"} { // an app is nobody but in a company
		if got := c.get(path, access); got.status != 400 {
			t.Errorf("%s: %d %s", path, got.status, got.text)
		}
		if got := c.get(path, access, "Procore-Company-Id", "42"); got.status != 200 {
			t.Errorf("%s: %d %s", path, got.status, got.text)
		}
		if got := c.get(path, access, "Procore-Company-Id", "43"); got.status != 403 {
			t.Errorf("%s: %d %s", path, got.status, got.text)
		}
	}
	if again := c.post("/oauth/token", ask).get("access_token"); again == access || !c.Accepts(token.NewSecret(access)) {
		t.Error("a second token is not another one beside the first")
	}
	if n := len(c.Presentations()); n != 0 {
		t.Errorf("%d presentations counted, though nothing can be spent", n)
	}
}

func TestProjects(t *testing.T) {
	c := newClient(t)
	access, _ := c.pair()
	const company = "4264807"
	path, pages, listed := "/rest/v1.0/projects?company_id="+company+"&per_page=2", 0, 0
	for path != "" {
		got := c.get(path, access, "Procore-Company-Id", company)
		var projects []struct{ ID int }
		if err := json.Unmarshal([]byte(got.text), &projects); err != nil || got.status != 200 {
			t.Fatalf("%d %s: %v", got.status, got.text, err)
		}
		pages, listed, path = pages+1, listed+len(projects), ""
		if next, found := strings.CutSuffix(got.header.Get("Link"), `>; rel="next"`); found {
			path = strings.TrimPrefix(next, "<"+c.URL)
		}
	}
	if pages != 3 || listed != 5 {
		t.Errorf("%d projects on %d pages", listed, pages)
	}
	for path, want := range map[string]int{"/rest/v1.0/projects": 400, "/rest/v1.0/projects?company_id=1": 400} {
		if got := c.get(path, access, "Procore-Company-Id", company); got.status != want {
			t.Errorf("%s: %d %s", path, got.status, got.text)
		}
	}
	if got := c.get("/rest/v1.0/projects?company_id="+company, "unknown", "Procore-Company-Id", company); got.status != 401 {
		t.Errorf("unknown token: %d", got.status)
	}
}

func TestOracle(t *testing.T) {
	c := newClient(t)
	_, first := c.pair()
	_, second := c.pair()
	c.refresh(first)
	c.refresh("unknown")
	c.Script(procoretest.LostBefore())
	if _, err := http.Post(c.URL+"/oauth/token", "application/x-www-form-urlencoded", strings.NewReader("grant_type=refresh_token&refresh_token="+second)); err == nil {
		t.Error("the answer was not lost")
	}
	var outcomes []string
	for _, p := range c.Presentations() {
		outcomes = append(outcomes, p.Grant+" "+p.Outcome)
	}
	if got := strings.Join(outcomes, ", "); got != "refresh_token granted, refresh_token invalid_grant, refresh_token unreceived" {
		t.Errorf("presentations: %s", got)
	}
	if n := c.Presented()[token.NewSecret(second).Fingerprint()]; n != 1 {
		t.Errorf("presented %d times", n)
	}
	live := c.Live()
	if len(live) != 2 || live[0].RefreshToken.Reveal() != second || c.Accepts(token.NewSecret(first)) {
		t.Errorf("live: %d", len(live))
	}
	code := c.consent().Get("code")
	c.RevokeAll(c.app.ClientID, "pat@example.com")
	if len(c.Live()) != 0 {
		t.Error("alive after the user withdrew")
	}
	c.refused(c.exchange(code), 400, "invalid_grant")
	_, third := c.pair()
	if n := len(c.Secrets()); n != 10 { // four pairs, a code, a client secret
		t.Errorf("%d secrets", n)
	}
	c.Forget()
	c.refused(c.refresh(third), 400, "invalid_grant")
}

// However many present one refresh token at once, one of them gets a pair.
func TestOneWinner(t *testing.T) {
	c := newClient(t)
	_, refresh := c.pair()
	var mu sync.Mutex
	wins := 0
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if c.refresh(refresh).status == 200 {
				mu.Lock()
				wins++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if n := c.Presented()[token.NewSecret(refresh).Fingerprint()]; wins != 1 || n != 20 || len(c.Live()) != 1 {
		t.Errorf("%d wins, %d presentations, %d live", wins, n, len(c.Live()))
	}
}

func TestHeld(t *testing.T) {
	c := newClient(t)
	access, refresh := c.pair()
	release := make(chan struct{})
	c.Script(procoretest.Held(release))
	done := make(chan answer, 1)
	go func() { done <- c.refresh(refresh) }()
	for c.Accepts(token.NewSecret(access)) { // until the refresh has taken effect
		runtime.Gosched()
	}
	select {
	case <-done:
		t.Error("answered before it was released")
	default:
	}
	close(release)
	if got := <-done; got.status != 200 {
		t.Errorf("%d %s", got.status, got.text)
	}
}

// serve --demo builds the stand-in into the command.
func TestNoTestingPackage(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.SplitSeq(string(out), "\n") {
		if dep == "testing" || strings.HasSuffix(dep, "httptest") {
			t.Errorf("depends on %s", dep)
		}
	}
}
