package procoretest_test

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func TestExchange(t *testing.T) {
	now := time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)
	c := newClient(t, procoretest.WithClock(func() time.Time { return now }))
	other := c.NewApp(callback)
	code := c.consent().Get("code")

	c.refused(c.exchange(code, "client_secret", "wrong"), 401, "invalid_client")
	c.refused(c.exchange("unknown", "client_secret", "wrong"), 401, "invalid_client")
	c.refused(c.exchange(code, "client_id", "", "client_secret", ""), 401, "invalid_client")
	c.refused(c.exchange(code, "client_id", other.ClientID, "client_secret", other.ClientSecret.Reveal()), 400,
		"invalid_grant")
	c.refused(c.exchange(code, "redirect_uri", ""), 400, "invalid_request")
	c.refused(c.exchange(code, "redirect_uri", callback+"?own=1"), 400, "invalid_grant")
	c.refused(c.exchange(code, "code", ""), 400, "invalid_request")
	c.refused(c.exchange(code, "grant_type", ""), 400, "invalid_request")
	c.refused(c.exchange(code, "grant_type", "password"), 400, "unsupported_grant_type")
	c.refused(c.exchange(code, "code_verifier", "one too many"), 400, "invalid_grant")

	got := c.exchange(code)
	if got.status != 200 || got.get("token_type") != "Bearer" || got.fields["expires_in"] != 5400.0 ||
		got.fields["created_at"] != float64(now.Unix()) ||
		got.get("access_token") == "" || got.get("refresh_token") == "" || got.fields["scope"] != nil ||
		got.header.Get("Cache-Control") != "no-store" {
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
	const verifier, challenge = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
		"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
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
	c.refused(c.refresh(refresh, "client_id", other.ClientID, "client_secret", other.ClientSecret.Reveal()), 400,
		"invalid_grant")
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
			if got := c.refresh(refresh); got.status != 200 || got.get("access_token") == "" ||
				got.fields["refresh_token"] != nil {
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
	if got := c.get("/rest/v1.0/me", access); got.text != "" || !strings.Contains(got.header.Get("WWW-Authenticate"),
		"expired") {
		t.Errorf("%v %s", got.header, got.text)
	}
	if got := c.get("/oauth/token/info", access); got.status != 401 || got.get("error") != "invalid_token" ||
		got.get("state") != "unauthorized" {
		t.Errorf("%s", got.text)
	}
	if got := c.post("/oauth/revoke", c.with(map[string]string{"token": access})); got.status != 200 ||
		!c.Accepts(token.NewSecret(refresh)) {
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
		return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}, "client_id": {c.app.ClientID},
			"client_secret": {c.app.ClientSecret.Reveal()}}
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
	c.refused(c.postBody("/oauth/token?"+form(refresh).Encode(), "application/x-www-form-urlencoded", ""), 400,
		"invalid_request")
	c.refused(c.postBody("/oauth/token", "application/x-www-form-urlencoded", form(refresh).Encode()+"&refresh_token=2"),
		400, "invalid_request")
	for _, broken := range []string{"{", form(refresh).Encode(), `{} {}`} {
		if got := c.postBody("/oauth/token", "application/json", broken); got.status != 400 || got.text != "" ||
			got.header.Get("Content-Type") != "text/html" {
			t.Errorf("broken JSON: %d %v %s", got.status, got.header, got.text)
		}
	}
}

// If many present one refresh token at once, exactly one of them gets a pair.
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
