package procoretest_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
)

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
	if err != nil || !strings.HasPrefix(redirect, callback+"?error=access_denied&error_description=") ||
		!strings.HasSuffix(redirect, "&state=st%26te%2B%2F%3D") {
		t.Errorf("denied: %s, %v", redirect, err)
	}
	if _, err := c.Consent(c.authorizeURL(), "nobody@example.com", true); err == nil {
		t.Error("an unknown user consented")
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
	if !strings.Contains(shown, "<title>Authorization code:</title>") || !strings.Contains(shown,
		`<code id="authorization_code">`+code+"</code>") {
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
		"plain PKCE": c.authorizeURL("code_challenge", strings.Repeat("x", 43), "code_challenge_method",
			"plain"),
		"PKCE without a method": c.authorizeURL("code_challenge", strings.Repeat("x", 43)),
		"challenge too short":   c.authorizeURL("code_challenge", "x", "code_challenge_method", "S256"),
		"a parameter twice":     c.authorizeURL() + "&state=2",
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
	form := url.Values{"request": {query}, "decision": {"allow"}, "login": {"pat@example.com"},
		"password": {"correct horse"}, "csrf": {""}}.Encode()
	for _, path := range []string{"/oauth/authorize", "/oauth/login"} {
		if got := c.postBody(path, "application/x-www-form-urlencoded", form); got.status != 400 ||
			got.header.Get("Location") != "" {
			t.Errorf("%s without a session: %d", path, got.status)
		}
	}
	page := c.get("/oauth/authorize?"+query, "")
	if page.status != 200 || !strings.Contains(page.text, "This is not Procore.") ||
		page.header.Get("Cache-Control") != "no-store" ||
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
