package procore

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// harness is an Issuer with a stand-in server and an app and user on it.
type harness struct {
	*procoretest.Server
	issuer *Issuer
	app    rotation.Application
	user   procoretest.User
}

func newHarness(t *testing.T, options ...procoretest.Option) harness {
	t.Helper()
	server := procoretest.New(options...)
	t.Cleanup(server.Close)
	issuer := New(Config{RedeemTimeout: 5 * time.Second})
	t.Cleanup(issuer.CloseIdleConnections)
	registered := server.NewApp("https://app.example.com/callback", OutOfBand)
	app, err := Credentials{ClientID: registered.ClientID, ClientSecret: registered.ClientSecret,
		RedirectURI: registered.RedirectURIs[0],
		LoginURL:    server.URL, APIURL: server.URL}.Application("stand-in")
	if err != nil {
		t.Fatal(err)
	}
	return harness{server, issuer, app, procoretest.DefaultUser()}
}

// issue gives a pair that the user consented to.
func (b harness) issue(t *testing.T) token.Pair {
	t.Helper()
	pair, err := b.Issue(b.app.ClientID, b.user.Login)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// secrets are all secrets of the server, as text to search for.
func (b harness) secrets() []string {
	var all []string
	for _, s := range b.Secrets() {
		all = append(all, s.Reveal())
	}
	return all
}

func (b harness) refresh(t *testing.T, refresh token.Secret) rotation.Answer {
	t.Helper()
	answer := b.issuer.Redeem(t.Context(), b.app, rotation.Grant{RefreshToken: refresh})
	noneOf(t, b.secrets(), answer)
	return answer
}

func TestFromConsentThroughTenGenerations(t *testing.T) {
	for name, personalities := range map[string][]procoretest.Personality{
		"old pair dies":         nil,
		"old pair lives on":     {procoretest.OldLivesUntilFirstUse},
		"reuse kills":           {procoretest.ReuseKillsFamily},
		"old release":           {procoretest.OldRelease},
		"old release, overlaps": {procoretest.OldRelease, procoretest.OldLivesUntilFirstUse},
	} {
		t.Run(name, func(t *testing.T) {
			b := newHarness(t, procoretest.With(personalities...))
			verifier := strings.Repeat("v", 43)
			sum := sha256.Sum256([]byte(verifier))
			address := AuthorizeURL(b.app, b.app.RedirectURI, "the-state", base64.RawURLEncoding.EncodeToString(sum[:]))
			redirect, err := b.Consent(address, b.user.Login, true)
			if err != nil {
				t.Fatal(err)
			}
			back, err := url.Parse(redirect)
			if err != nil || back.Query().Get("state") != "the-state" || !strings.HasPrefix(redirect, b.app.RedirectURI+"?") {
				t.Fatalf("sent back to %s, %v", redirect, err)
			}
			answer := b.issuer.Redeem(t.Context(), b.app, rotation.Grant{Code: token.NewSecret(back.Query().Get("code")),
				RedirectURI: b.app.RedirectURI, Verifier: token.NewSecret(verifier)})
			for generation := range 10 {
				got := b.issuer.Parse(answer.Body)
				if got.Verdict != rotation.Sound || got.Pair.Lifetime != 90*time.Minute || got.Pair.CreatedAt.IsZero() {
					t.Fatalf("generation %d: %+v, %+v", generation, answer, got)
				}
				id, err := b.issuer.Identify(t.Context(), b.app, got.Pair.AccessToken, "")
				if want := (rotation.Identity{ClientID: b.app.ClientID, ResourceOwner: "160586",
					Login: "pat@example.com"}); err != nil || id != want {
					t.Fatalf("generation %d: %+v, %v", generation, id, err)
				}
				answer = b.refresh(t, got.Pair.RefreshToken)
			}
			for fingerprint, n := range b.Presented() {
				if n != 1 {
					t.Errorf("%s was presented %d times", fingerprint, n)
				}
			}
			if n := len(b.Presentations()); n != 11 {
				t.Errorf("%d presentations", n)
			}
		})
	}
}

func TestRedeemScripted(t *testing.T) {
	const wait = 40 * time.Second
	for name, c := range map[string]struct {
		answer  procoretest.Answer
		class   rotation.Class
		verdict rotation.Verdict
		spent   bool
	}{
		"lost":                  {procoretest.Lost(), rotation.UnknownResult, "", true},
		"lost on its way":       {procoretest.LostBefore(), rotation.UnknownResult, "", false},
		"cut off in the middle": {procoretest.Truncated(20), rotation.Captured, rotation.Empty, true},
		"HTML, 200":             {procoretest.HTML(200), rotation.Captured, rotation.Empty, false},
		"HTML, 502":             {procoretest.HTML(502), rotation.UnknownResult, "", false},
		"too many requests":     {procoretest.TooManyRequests(wait), rotation.RateLimited, "", false},
		"500":                   {procoretest.Unavailable(500), rotation.UnknownResult, "", false},
		"503":                   {procoretest.Unavailable(503), rotation.UnknownResult, "", false},
		"307":                   {procoretest.Redirect("/oauth/token"), rotation.OddRefusal, "", false},
		"302":                   {procoretest.Found("/elsewhere"), rotation.OddRefusal, "", false},
		"a firewall's page":     {procoretest.HTML(403), rotation.OddRefusal, "", false},
		"415":                   {procoretest.Text(415), rotation.OddRefusal, "", false},
		"a false refusal":       {procoretest.Refused(), rotation.Refused, "", false},
		"gzip":                  {procoretest.Gzipped(), rotation.Captured, rotation.Sound, true},
		"UTF-16":                {procoretest.InUTF16(), rotation.Captured, rotation.Sound, true},
		"unreadable":            {procoretest.Unreadable(), rotation.Captured, rotation.Unreadable, true},
		"text after the answer": {procoretest.Rewritten(func(sound string) string { return sound + "<!-- 3 ms -->" }),
			rotation.Captured, rotation.Salvaged, true},
		"no refresh token": {procoretest.Rewritten(func(sound string) string {
			return strings.Replace(sound, "refresh_token",
				"x", 1)
		}),
			rotation.Captured, rotation.AccessOnly, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newHarness(t)
			pair := b.issue(t)
			b.Script(c.answer)
			got := b.refresh(t, pair.RefreshToken)
			if got.Class != c.class || b.Accepts(pair.RefreshToken) == c.spent {
				t.Errorf("got %+v, still accepted: %v", got, b.Accepts(pair.RefreshToken))
			}
			if c.class == rotation.Captured {
				judgement := b.issuer.Parse(got.Body)
				noneOf(t, b.secrets(), judgement)
				if judgement.Verdict != c.verdict {
					t.Errorf("judged %+v", judgement)
				}
			}
			if c.class == rotation.RateLimited && (got.Wait < wait-time.Second || got.Wait > wait) {
				t.Errorf("wait %v", got.Wait)
			}
			if n := len(b.Presentations()); n != 1 {
				t.Errorf("%d presentations", n)
			}
		})
	}
}

func TestRedeemRefused(t *testing.T) {
	for name, personalities := range map[string][]procoretest.Personality{"400 and 401": nil,
		"always 401": {procoretest.OldRelease}} {
		t.Run(name, func(t *testing.T) {
			b := newHarness(t, procoretest.With(personalities...))
			pair := b.issue(t)
			wrong := b
			wrong.app.ClientSecret = token.NewSecret("canary")
			if got := wrong.refresh(t, pair.RefreshToken); got.Class != rotation.ClientFault {
				t.Errorf("wrong secret: %+v", got)
			}
			if got := b.refresh(t, token.NewSecret("canary")); got.Class != rotation.Refused {
				t.Errorf("unknown token: %+v", got)
			}
			if got := b.issuer.Redeem(t.Context(), b.app,
				rotation.Grant{Code: token.NewSecret("canary")}); got.Class != rotation.RequestFault {
				t.Errorf("no redirect URI: %+v", got)
			}
			if got := b.refresh(t, pair.RefreshToken); got.Class != rotation.Captured {
				t.Errorf("after all these: %+v", got)
			}
			if got := b.refresh(t, pair.RefreshToken); got.Class != rotation.Refused {
				t.Errorf("spent token: %+v", got)
			}
		})
	}
}

func TestIdentifyCompany(t *testing.T) {
	b := newHarness(t)
	pair := b.issue(t)
	own := strconv.FormatInt(b.user.Companies[0], 10)
	ask := func(company string) string {
		t.Helper()
		id, err := b.issuer.Identify(t.Context(), b.app, pair.AccessToken, company)
		if err != nil || id.Login != b.user.Login {
			t.Errorf("company %q: %+v, %v", company, id, err)
		}
		return id.Company
	}
	for company, want := range map[string]string{own: own, "999": "", "canary company": ""} {
		if got := ask(company); got != want {
			t.Errorf("company %q: %q", company, got)
		}
	}
	b.Uninstall(b.app.ClientID, b.user.Companies[0])
	id, err := b.issuer.Identify(t.Context(), b.app, pair.AccessToken, own)
	if !errors.Is(err, rotation.ErrAppNotInstalled) || id.ClientID != b.app.ClientID || id.Company != "" ||
		id.Login != b.user.Login {
		t.Errorf("not installed: %+v, %v", id, err)
	}
	b.Install(b.app.ClientID, b.user.Companies[0])
	if got := ask(own); got != own {
		t.Errorf("installed again: %q", got)
	}
	b.RevokeAll(b.app.ClientID, b.user.Login)
	_, err = b.issuer.Identify(t.Context(), b.app, pair.AccessToken, own)
	if !errors.Is(err, rotation.ErrTokenRefused) {
		t.Errorf("revoked: %v", err)
	}
	noneOf(t, b.secrets(), err)
}

// Other answers of servers to Identify.
func TestIdentifyAnswers(t *testing.T) {
	const info = `{"resource_owner_id":"9007199254740993","scopes":[],"expires_in_seconds":1,"application":{"uid":"id-1"}}`
	type answer struct {
		status int
		body   string
	}
	owner := rotation.Identity{ClientID: "id-1", ResourceOwner: "9007199254740993"}
	for name, c := range map[string]struct {
		info, me, company answer
		want              rotation.Identity
		wrong             string
	}{
		"a service account": {answer{200, strings.ReplaceAll(info, `"9007199254740993"`, "null")}, answer{400,
			"Missing Procore-Company-Id header!"}, answer{200, "{}"}, rotation.Identity{ClientID: "id-1", Company: "42"}, ""},
		"/me forbidden": {answer{200, info}, answer{403, ""}, answer{403, ""}, owner, ""},
		"id as a number": {answer{200, strings.ReplaceAll(info, `"9007199254740993"`, "9007199254740993")}, answer{403,
			""}, answer{403, ""}, owner, ""},
		"no user": {answer{200, strings.ReplaceAll(info, `"9007199254740993"`, "null")}, answer{403, ""},
			answer{403, ""}, rotation.Identity{ClientID: "id-1"}, ""},
		"company 401":       {answer{200, info}, answer{200, `{}`}, answer{401, ""}, owner, "unexpected answer HTTP 401"},
		"company unknown":   {answer{200, info}, answer{200, `{}`}, answer{404, `{"errors":"canary"}`}, owner, ""},
		"company forbidden": {answer{200, info}, answer{200, `{}`}, answer{403, `{"errors":["no access"]}`}, owner, ""},
		"company in bad form": {answer{200, info}, answer{200, `{}`}, answer{400, "Procore-Company-Id must be a number"},
			owner, ""},
		"company, a firewall": {answer{200, info}, answer{200, `{}`}, answer{403, "<html>canary</html>"}, owner,
			"unexpected answer HTTP 403"},
		"company, another one": {answer{200, info}, answer{200, `{}`}, answer{403, "error code: 1020"}, owner,
			"unexpected answer HTTP 403"},
		"company, a lost route": {answer{200, info}, answer{200, `{}`}, answer{404, "404 page not found"}, owner,
			"unexpected answer HTTP 404"},
		"company, a gateway": {answer{200, info}, answer{200, `{}`}, answer{400, "Bad Request"}, owner,
			"unexpected answer HTTP 400"},
		"company redirected": {answer{200, info}, answer{200, `{}`}, answer{302, ""}, owner, "unexpected answer HTTP 302"},
		"company 500": {answer{200, info}, answer{200, `{}`}, answer{500, "canary"}, owner,
			"unexpected answer HTTP 500"},
		"/me, a firewall": {answer{200, info}, answer{403, "<html>canary</html>"}, answer{}, owner,
			"unexpected answer HTTP 403"},
		"/me 404": {answer{200, info}, answer{404, ""}, answer{}, owner, "unexpected answer HTTP 404"},
		"/me 429": {answer{200, info}, answer{429, "canary"}, answer{}, owner, "unexpected answer HTTP 429"},
		"info, a firewall's": {answer{401, "<html>canary</html>"}, answer{}, answer{}, rotation.Identity{},
			"unexpected answer HTTP 401"},
		"in gzip": {answer{200, gzipped(info)}, answer{200, gzipped(`{"login":"x"}`)}, answer{200, gzipped("{}")},
			rotation.Identity{ClientID: "id-1", ResourceOwner: owner.ResourceOwner, Login: "x", Company: "42"}, ""},
		"info 401": {answer{401, "canary"}, answer{}, answer{}, rotation.Identity{}, "refuses the access token"},
		"info without uid": {answer{200, `{"resource_owner_id":1}`}, answer{}, answer{}, rotation.Identity{},
			"no application.uid"},
		"info HTML": {answer{200, "<html>canary"}, answer{}, answer{}, rotation.Identity{}, "no application.uid"},
		"info 429":  {answer{429, "canary"}, answer{}, answer{}, rotation.Identity{}, "unexpected answer HTTP 429"},
		"info 404":  {answer{404, "canary"}, answer{}, answer{}, rotation.Identity{}, "unexpected answer HTTP 404"},
		"/me 401":   {answer{200, info}, answer{401, "canary"}, answer{}, owner, "unexpected answer HTTP 401"},
		"/me 500":   {answer{200, info}, answer{500, "canary"}, answer{}, owner, "unexpected answer HTTP 500"},
		"/me HTML":  {answer{200, info}, answer{200, "<html>canary"}, answer{}, owner, "is not JSON"},
		"company 429": {answer{200, info}, answer{200, `{}`}, answer{429, "canary"}, owner,
			"unexpected answer HTTP 429"},
		"company HTML": {answer{200, info}, answer{200, `{}`}, answer{200, "<html>canary"}, owner,
			"is not JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				reply := c.info
				switch {
				case r.Header.Get("Authorization") != "Bearer canary-access" || !strings.HasPrefix(r.UserAgent(), "tokenturn/"):
					t.Errorf("headers %v", r.Header)
				case r.URL.Path == "/rest/v1.0/me" && r.URL.RawQuery == "":
					reply = c.me
				case r.URL.Path == "/rest/v1.0/me":
					reply = c.company
					if r.URL.RawQuery != "company_id=42" || r.Header.Get("Procore-Company-Id") != "42" {
						t.Errorf("%s, header %q", r.URL, r.Header.Get("Procore-Company-Id"))
					}
				}
				w.WriteHeader(reply.status)
				_, _ = io.WriteString(w, reply.body)
			}))
			defer server.Close()
			issuer := New(Config{})
			defer issuer.CloseIdleConnections()
			id, err := issuer.Identify(t.Context(), testApp(server.URL), token.NewSecret("canary-access"), "42")
			if id != c.want || (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("got %+v, %v", id, err)
			}
			if errors.Is(err, rotation.ErrTokenRefused) != (name == "info 401") {
				t.Errorf("error %v", err)
			}
			noCanary(t, err)
		})
	}
}

// Procore's text for an app that an administrator has not installed yet, and likely
// variants of it, are distinguished from other refusals.
func TestAppNotInstalled(t *testing.T) {
	for text, want := range map[string]bool{
		`{"errors":["App is not connected to this company."]}`:                         true,
		`{"errors":"The app is not connected to this company"}`:                        true,
		`{"message":"App is not installed"}`:                                           true,
		`{"error":"The application has not yet been installed in this company."}`:      true,
		`{"error":"APPLICATION ISN'T INSTALLED"}`:                                      true,
		`{"code":"app_not_installed"}`:                                                 true,
		`{"errors":["This company has not installed the app."]}`:                       true,
		`{"errors":["The app is no longer connected to company 42"]}`:                  true,
		`{"errors":["You do not have access to this company."]}`:                       false,
		`{"errors":["You do not have permission to use this application"]}`:            false,
		`{"errors":["Your account is not connected"]}`:                                 false,
		`{"errors":["The tool happens to be disabled; it is not installed anywhere"]}`: false,
		"": false,
	} {
		for _, status := range []int{200, 400, 401, 403, 404, 429, 500} {
			got := reply{status: status, body: []byte(text)}.appNotInstalled()
			if refusal := slices.Contains([]int{400, 401, 403, 404}, status); got != (want && refusal) {
				t.Errorf("%d %s: %v", status, text, got)
			}
		}
	}
}

// A wait that a server asks for is obeyed, for a bounded time.
func TestIdentifyHasToWait(t *testing.T) {
	for name, c := range map[string]struct {
		path, retryAfter string
		status           int
		want             time.Duration
	}{
		"info 429":               {"/oauth/token/info", "30", 429, 30 * time.Second},
		"/me 503":                {"/rest/v1.0/me", "30", 503, 30 * time.Second},
		"/me 429, a day":         {"/rest/v1.0/me", "86400", 429, maxWait},
		"/me 429, without words": {"/rest/v1.0/me", "", 429, 0},
		"/me 403 of a firewall":  {"/rest/v1.0/me", "60", 403, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != c.path {
					_, _ = io.WriteString(w, `{"application":{"uid":"id-1"}}`)
					return
				}
				if c.retryAfter != "" {
					w.Header().Set("Retry-After", c.retryAfter)
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, "<html>canary</html>")
			}))
			defer server.Close()
			issuer := New(Config{})
			defer issuer.CloseIdleConnections()
			_, err := issuer.Identify(t.Context(), testApp(server.URL), token.NewSecret("canary-access"), "")
			wait, has := errors.AsType[*rotation.WaitError](err)
			if err == nil || has != (c.want > 0) || has && wait.Wait != c.want {
				t.Errorf("got %v, %+v", err, wait)
			}
			noCanary(t, err)
		})
	}
}

// A service account gets an access token alone, acts in the companies that
// permit it, and has no user.
func TestServiceAccount(t *testing.T) {
	b := newHarness(t)
	own := rotation.Grant{ClientCredentials: true}
	if got := b.issuer.Redeem(t.Context(), b.app, own); got.Class != rotation.GrantFault {
		t.Errorf("without a service account: %+v", got)
	}
	b.Register(procoretest.App{ClientID: b.app.ClientID, ClientSecret: b.app.ClientSecret, ServiceAccount: []int64{42}})
	answer := b.issuer.Redeem(t.Context(), b.app, own)
	judged := Parse(answer.Body)
	if answer.Class != rotation.Captured || judged.Verdict != rotation.AccessOnly ||
		judged.Pair.Lifetime != 90*time.Minute {
		t.Fatalf("%+v, %+v", answer, judged)
	}
	for company, want := range map[string]string{"42": "42", "43": ""} {
		id, err := b.issuer.Identify(t.Context(), b.app, judged.Pair.AccessToken, company)
		if err != nil || id != (rotation.Identity{ClientID: b.app.ClientID, Company: want}) {
			t.Errorf("company %s: %+v, %v", company, id, err)
		}
	}
	if err := b.issuer.Revoke(t.Context(), b.app, judged.Pair.AccessToken); err != nil ||
		b.Accepts(judged.Pair.AccessToken) {
		t.Errorf("revoking: %v", err)
	}
	noneOf(t, b.secrets(), answer, judged)
}

func TestRevoke(t *testing.T) {
	b := newHarness(t)
	pair := b.issue(t)
	wrong := b.app
	wrong.ClientSecret = token.NewSecret("canary-secret")
	err := b.issuer.Revoke(t.Context(), wrong, pair.AccessToken)
	if !errors.Is(err, rotation.ErrCredentialsRefused) || !strings.Contains(err.Error(), "app set stand-in") ||
		!b.Accepts(pair.RefreshToken) {
		t.Errorf("wrong credentials: %v", err)
	}
	noneOf(t, append(b.secrets(), "canary"), err)
	for range 2 { // the second time the token is dead already
		if err := b.issuer.Revoke(t.Context(), b.app, pair.AccessToken); err != nil || b.Accepts(pair.RefreshToken) ||
			b.Accepts(pair.AccessToken) {
			t.Errorf("revoked: %v, refresh token accepted: %v", err, b.Accepts(pair.RefreshToken))
		}
	}
	other := b.issue(t)
	if err := b.issuer.Revoke(t.Context(), b.app, other.RefreshToken); err != nil || b.Accepts(other.AccessToken) {
		t.Errorf("by refresh token: %v", err)
	}
	if err := b.issuer.Revoke(t.Context(), b.app, token.NewSecret("canary")); err != nil {
		t.Errorf("unknown token: %v", err)
	}
	b.Close()
	err = b.issuer.Revoke(t.Context(), b.app, token.NewSecret("canary"))
	if err == nil || errors.Is(err, rotation.ErrCredentialsRefused) {
		t.Errorf("no server: %v", err)
	}
	noneOf(t, append(b.secrets(), "canary"), err)
}

func TestCheckCredentials(t *testing.T) {
	b := newHarness(t)
	if err := b.issuer.CheckCredentials(t.Context(), b.app); err != nil {
		t.Errorf("good ones: %v", err)
	}
	wrong := b.app
	wrong.ClientSecret = token.NewSecret("canary-secret")
	if err := b.issuer.CheckCredentials(t.Context(), wrong); !errors.Is(err, rotation.ErrCredentialsRefused) {
		t.Errorf("wrong ones: %v", err)
	}
	b.Script(procoretest.Answer{Unreceived: true, Status: 401,
		Body: func(string) string { return `{"error":"unauthorized_client"}` }})
	if err := b.issuer.CheckCredentials(t.Context(), b.app); err != nil {
		t.Errorf("good ones of an app without this grant type: %v", err)
	}
	b.Script(procoretest.Unavailable(503))
	err := b.issuer.CheckCredentials(t.Context(), b.app)
	if err == nil || errors.Is(err, rotation.ErrCredentialsRefused) ||
		!strings.Contains(err.Error(), "HTTP 503") {
		t.Errorf("unavailable: %v", err)
	}
}

// A process that was frozen may hold connections that died meanwhile.
func TestCloseIdleConnections(t *testing.T) {
	var mu sync.Mutex
	var remotes []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		remotes = append(remotes, r.RemoteAddr)
		_, _ = io.WriteString(w, "{}")
	}))
	defer server.Close()
	issuer := New(Config{})
	defer issuer.CloseIdleConnections()
	for range 2 {
		for range 2 {
			if err := issuer.Revoke(t.Context(), testApp(server.URL), token.NewSecret("x")); err != nil {
				t.Fatal(err)
			}
		}
		issuer.CloseIdleConnections()
	}
	mu.Lock()
	defer mu.Unlock()
	if remotes[0] != remotes[1] || remotes[1] == remotes[2] || len(slices.Compact(remotes)) != 2 {
		t.Errorf("connections from %v", remotes)
	}
}
