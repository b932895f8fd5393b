package consent_test

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// Headings of the pages.
const (
	invitePage       = "Connect your Procore account"
	renewPage        = "Reconnect your Procore account"
	nothingPage      = "Nothing was connected here"
	linkUnusablePage = "This link does not work"
	linkUsedPage     = "This link has been used"
	linkExpiredPage  = "This link has expired"
	alreadyPage      = "Procore is already connected"
	stillWorkingPage = "Still working on it"
	refusedPage      = "We could not verify this sign-in"
	notFoundPage     = "There is nothing here"
	connectedPage    = "Procore is connected"
	verifyingPage    = "Saved, and still being checked"
	notInstalledPage = "Saved: the app still has to be installed"
	deniedPage       = "You did not allow access"
	wrongAccountPage = "That was another account"
	supersededPage   = "This connection was changed meanwhile"
	failedPage       = "We could not finish"
	unavailablePage  = "Please try again in a few minutes"
)

func TestConnect(t *testing.T) {
	s := newServer(t)
	path, hash := s.invite(rotation.Identity{Login: "pat@example.com"})
	b := s.browser()

	page := want(t, b.do("GET", path), 200, invitePage)
	for _, text := range []string{"tokens.example.com", "sandbox/acme", "pat@example.com", "login-sandbox.example.net"} {
		if !strings.Contains(page, text) {
			t.Errorf("the invitation page does not say %s", text)
		}
	}

	request := b.start(path)
	if request.Get("redirect_uri") != publicURL+"/callback/sandbox" || request.Get("client_id") != "client-of-sandbox" ||
		request.Get("code_challenge_method") != "S256" ||
		!regexp.MustCompile(`^[A-Za-z0-9]{43,}$`).MatchString(request.Get("state")) {
		t.Errorf("authorization request %v", request)
	}
	if len(b.cookies) != 1 {
		t.Fatalf("cookies %v", b.cookies)
	}
	c := b.cookies[0]
	if !strings.HasPrefix(c.Name, "__Host-tokenturn-") || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode ||
		c.Path != "/" || c.Domain != "" || c.MaxAge != 600 {
		t.Errorf("cookie %s", c.Raw)
	}

	answer := b.do("GET", callback(url.Values{"code": {s.issuer.consent(request)}, "state": request["state"],
		"iss": {loginURL}}))
	if got := answer.Header.Get("Location"); got != publicURL+"/connected" {
		t.Errorf("redirected to %s", got)
	}
	b.wantResult(answer, connectedPage)
	if rec := s.record(); rec.Status != rotation.Active || rec.Epoch != 1 || rec.Pin.ResourceOwner != "42" {
		t.Errorf("record %+v", rec)
	}
	if s.issuer.count() != 1 || s.invitation(hash).UsedAt.IsZero() {
		t.Errorf("%d exchanges, invitation %+v", s.issuer.count(), s.invitation(hash))
	}
	if !strings.Contains(s.log.String(), "connection=sandbox/acme result=connected reference=") {
		t.Errorf("log:\n%s", s.log)
	}
	want(t, b.do("GET", path), 410, linkUsedPage)
	want(t, b.do("POST", path), 410, linkUsedPage)
}

// Cookie and state together give the verifier, so neither the address bar nor the store is
// enough to redeem a code. An older or newer version in the middle of a deployment gives the same one.
func TestVerifierNeedsCookieAndState(t *testing.T) {
	s := newServer(t)
	path, _ := s.invite(rotation.Identity{})
	b := s.browser()
	request := b.start(path)
	key, err := hkdf.Key(sha256.New, []byte(b.cookies[0].Value), []byte(request.Get("state")), "tokenturn PKCE verifier",
		32)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(base64.RawURLEncoding.EncodeToString(key)))
	if request.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(sum[:]) {
		t.Error("the code challenge does not match")
	}
}

func TestRepeatsShowTheResult(t *testing.T) {
	s := newServer(t)
	path, _ := s.invite(rotation.Identity{})
	b := s.browser()
	address := b.allow(path)
	first := b.do("GET", address).Header.Get("Location")
	for range 3 {
		if again := b.do("GET", address); again.StatusCode != 303 || again.Header.Get("Location") != first {
			t.Errorf("a repeat answered %d %s", again.StatusCode, again.Header.Get("Location"))
		}
	}
	s.clock.advance(20 * time.Minute) // the result outlives the state
	b.wantResult(b.do("GET", address), connectedPage)
	want(t, s.browser().do("GET", address), 400, refusedPage)
	if s.issuer.count() != 1 {
		t.Errorf("%d exchanges", s.issuer.count())
	}
}

func TestRepeatOfAFailureHasTheSameReference(t *testing.T) {
	s := newServer(t)
	path, _ := s.invite(rotation.Identity{})
	b := s.browser()
	s.issuer.answer = rotation.Answer{Class: rotation.Refused, Detail: "invalid_grant"}
	address := b.allow(path)
	first := b.wantResult(b.do("GET", address), failedPage)
	if again := b.wantResult(b.do("GET", address), failedPage); again != first {
		t.Error("the repeat shows another page")
	}
	mark := regexp.MustCompile(`<strong>([A-Z2-7]{4}-[A-Z2-7]{4})</strong>`).FindStringSubmatch(first)
	if mark == nil || !strings.Contains(s.log.String(), "reference="+mark[1]) {
		t.Errorf("reference %v is not in the log:\n%s", mark, s.log)
	}
}

func TestDenial(t *testing.T) {
	s := newServer(t)
	path, hash := s.invite(rotation.Identity{})
	b := s.browser()
	request := b.start(path)
	denial := callback(url.Values{"error": {"access_denied"}, "state": request["state"], "iss": {loginURL + "/"},
		"error_description": {"<b>canary-description</b>"}})
	page := b.wantResult(b.do("GET", denial), deniedPage)
	b.wantResult(b.do("GET", denial), deniedPage)
	if strings.Contains(page, "canary-description") {
		t.Error("the description is shown")
	}
	if i := s.invitation(hash); !i.UsedAt.IsZero() || i.Starts != 1 {
		t.Errorf("invitation %+v", i)
	}
	// The state is used up, the link is not.
	b.wantResult(b.do("GET", callback(url.Values{"code": {s.issuer.consent(request)}, "state": request["state"]})),
		deniedPage)
	if s.issuer.count() != 0 {
		t.Error("a code was exchanged")
	}
	b.wantResult(b.do("GET", b.allow(path)), connectedPage)
}

func TestOutcomes(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(s *server)
		page    string
		redeems int
	}{
		{"unknown error", func(s *server) {}, failedPage, 0},
		{"another user", func(s *server) { s.issuer.identity.Login = "sam@example.com" }, wrongAccountPage, 1},
		{"identity not known yet", func(s *server) { s.issuer.fault = errors.New("HTTP 503") }, verifyingPage, 1},
		{"app not installed", func(s *server) { s.issuer.fault = rotation.ErrAppNotInstalled }, notInstalledPage, 1},
		{"code refused", answers(rotation.Refused), failedPage, 1},
		{"client fault", answers(rotation.ClientFault), failedPage, 1},
		{"answer lost", answers(rotation.UnknownResult), failedPage, 1},
		{"asked to wait", answers(rotation.RateLimited), unavailablePage, 1},
		{"not reached", answers(rotation.NotSent), unavailablePage, 1},
		{"changed during the exchange", func(s *server) { s.issuer.during = s.supersede }, supersededPage, 1},
		{"changed before the exchange", func(s *server) { s.supersede() }, supersededPage, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t)
			path, hash := s.invite(rotation.Identity{Login: "pat@example.com"})
			b := s.browser()
			address := b.allow(path)
			if c.name == "unknown error" {
				address = strings.Replace(address, "code=", "error=made_up_", 1)
			}
			c.prepare(s)
			b.wantResult(b.do("GET", address), c.page)
			if s.issuer.count() != c.redeems {
				t.Errorf("%d exchanges, want %d", s.issuer.count(), c.redeems)
			}
			if !s.invitation(hash).UsedAt.IsZero() {
				t.Error("the invitation is used up")
			}
			s.issuer.during = nil
			b.wantResult(b.do("GET", address), c.page)
			if s.issuer.count() != c.redeems {
				t.Error("the repeat exchanged again")
			}
			if strings.Contains(s.log.String(), "made_up") {
				t.Error("a stranger's words are in the log")
			}
		})
	}
}

func answers(class rotation.Class) func(*server) {
	return func(s *server) { s.issuer.answer = rotation.Answer{Class: class, Detail: "HTTP 000"} }
}

// supersede raises the connection's epoch, as another consent would.
func (s *server) supersede() {
	rec := s.record()
	rec.Epoch++
	if _, err := s.files.Ledger().Write(s.t.Context(), rotation.Change{Record: rec}); err != nil {
		s.t.Error(err)
	}
}

// A second request that has read the state before the first one connected shows its result.
func TestACallbackAfterItsTwinConnected(t *testing.T) {
	s := newServer(t)
	path, _ := s.invite(rotation.Identity{})
	b := s.browser()
	address := b.allow(path)
	twin := &browser{server: s, cookies: b.cookies}
	s.store.ahead = map[string]func(){"Invitation": func() {
		s.store.ahead = nil
		twin.wantResult(twin.do("GET", address), connectedPage)
	}}
	answer := b.do("GET", address)
	if to := answer.Header.Get("Location"); to != publicURL+"/connected" {
		t.Errorf("redirected to %s", to)
	}
	b.wantResult(answer, connectedPage)
	if s.issuer.redeems != 1 {
		t.Errorf("%d exchanges", s.issuer.redeems)
	}
}

func TestParallelCallbacksExchangeOnce(t *testing.T) {
	s := newServer(t)
	path, hash := s.invite(rotation.Identity{})
	b := s.browser()
	address := b.allow(path)
	var wg sync.WaitGroup
	for range 2 {
		twin := &browser{server: s, cookies: b.cookies}
		wg.Go(func() {
			answer := twin.do("GET", address)
			if answer.StatusCode != 303 || answer.Header.Get("Location") != publicURL+"/connected" {
				t.Errorf("answered %d %s", answer.StatusCode, answer.Header.Get("Location"))
			}
		})
	}
	wg.Wait()
	if s.issuer.count() != 1 || s.invitation(hash).UsedAt.IsZero() {
		t.Errorf("%d exchanges, invitation %+v", s.issuer.count(), s.invitation(hash))
	}
}

func TestTwoTabs(t *testing.T) {
	s := newServer(t)
	path, _ := s.invite(rotation.Identity{})
	b := s.browser()
	first, second := b.start(path), b.start(path)
	if len(b.cookies) != 2 || b.cookies[0].Name == b.cookies[1].Name {
		t.Fatalf("cookies %v", b.cookies)
	}
	b.wantResult(b.do("GET", callback(url.Values{"error": {"access_denied"}, "state": second["state"]})), deniedPage)
	b.wantResult(b.do("GET", callback(url.Values{"code": {s.issuer.consent(first)}, "state": first["state"]})),
		connectedPage)
}

// One success per invitation, however many starts of it are under way.
func TestSecondSuccessOfOneInvitation(t *testing.T) {
	s := newServer(t)
	path, _ := s.invite(rotation.Identity{})
	b, other := s.browser(), s.browser()
	first, second := b.allow(path), other.allow(path)
	b.wantResult(b.do("GET", first), connectedPage)
	other.wantResult(other.do("GET", second), alreadyPage)
	if s.issuer.count() != 1 {
		t.Errorf("%d exchanges", s.issuer.count())
	}
}

// A consent with an owner that is not known yet leaves the link usable for the right person.
// Once a run has found that the owner was the right one, the link has ended.
func TestVerifyingLeavesTheLinkUntilItIsDecided(t *testing.T) {
	s := newServer(t)
	path, hash := s.invite(rotation.Identity{Login: "pat@example.com"})
	b := s.browser()
	s.issuer.fault = errors.New("HTTP 503")
	b.wantResult(b.do("GET", b.allow(path)), verifyingPage)
	want(t, b.do("GET", path), 200, invitePage)

	s.issuer.fault = nil
	s.sweep()
	if rec := s.record(); rec.Status != rotation.Active || !s.invitation(hash).UsedAt.IsZero() {
		t.Fatalf("record %+v", rec)
	}
	want(t, b.do("GET", path), 410, alreadyPage)
	want(t, b.do("POST", path), 410, alreadyPage)
}

// sweep is what the rotate function does later.
func (s *server) sweep() {
	s.t.Helper()
	s.clock.advance(10 * time.Minute)
	rotator, err := rotation.NewRotator(rotation.Config{Ledger: s.files.Ledger(), SecretStore: s.files.SecretStore(),
		Sealer:       s.files.Sealer(),
		Applications: s.apps, Issuer: s.issuer, Now: s.clock.Now, Settings: rotation.DefaultSettings("test")})
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := rotator.Sweep(context.Background()); err != nil {
		s.t.Fatal(err)
	}
}

// Two people were sent a link to one connection.
func TestOtherInvitationOfAConnectedConnection(t *testing.T) {
	s := newServer(t)
	first, _ := s.invite(rotation.Identity{})
	second, _ := s.invite(rotation.Identity{})
	b, other := s.browser(), s.browser()
	underWay := other.allow(second)
	b.wantResult(b.do("GET", b.allow(first)), connectedPage)
	want(t, other.do("GET", second), 410, alreadyPage)
	want(t, other.do("POST", second), 410, alreadyPage)
	page := other.wantResult(other.do("GET", underWay), alreadyPage)
	if !strings.Contains(page, "reference number") || s.issuer.count() != 1 {
		t.Errorf("%d exchanges, page %s", s.issuer.count(), page)
	}
}

func TestRevokedInvitationStopsWhatIsUnderWay(t *testing.T) {
	s := newServer(t)
	path, hash := s.invite(rotation.Identity{})
	b := s.browser()
	request := b.start(path)
	allowed := callback(url.Values{"code": {s.issuer.consent(request)}, "state": request["state"]})
	if err := s.store.RevokeInvitation(t.Context(), hash, s.clock.Now()); err != nil {
		t.Fatal(err)
	}
	want(t, b.do("GET", allowed), 410, linkUnusablePage)
	want(t, b.do("GET", callback(url.Values{"error": {"access_denied"}, "state": request["state"]})), 410,
		linkUnusablePage)
	want(t, b.do("GET", path), 410, linkUnusablePage)
	if s.issuer.count() != 0 || s.record().Status != rotation.Pending {
		t.Errorf("%d exchanges, record %+v", s.issuer.count(), s.record())
	}
}

// Another user may take over a connection only if the operator allowed it.
func TestRepin(t *testing.T) {
	for _, c := range []struct {
		name     string
		invited  rotation.Identity
		comes    rotation.Identity
		heading  string
		ownedNow string
	}{
		{"another user", rotation.Identity{}, rotation.Identity{ResourceOwner: "43", Company: "7"}, wrongAccountPage, "42"},
		{"another user, agreed", rotation.Identity{Repin: true}, rotation.Identity{ResourceOwner: "43", Company: "7"},
			connectedPage, "43"},
		{"another user, agreed, without access to the company", rotation.Identity{Repin: true},
			rotation.Identity{ResourceOwner: "43"}, wrongAccountPage, "42"},
		{"another company", rotation.Identity{Company: "8"}, rotation.Identity{ResourceOwner: "42", Company: "8"},
			wrongAccountPage, "42"},
		{"another company, agreed", rotation.Identity{Company: "8", Repin: true}, rotation.Identity{ResourceOwner: "42",
			Company: "8"}, connectedPage, "42"},
		{"the same login in another case", rotation.Identity{Login: "PAT@Example.com"}, rotation.Identity{ResourceOwner: "42",
			Login: "pat@example.com", Company: "7"}, connectedPage, "42"},
		{"another client id, agreed", rotation.Identity{Repin: true}, rotation.Identity{ClientID: "elsewhere",
			ResourceOwner: "42", Company: "7"}, wrongAccountPage, "42"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t)
			b := s.browser()
			s.issuer.identity.Company = "7"
			path, _ := s.invite(rotation.Identity{Company: "7"})
			b.wantResult(b.do("GET", b.allow(path)), connectedPage)
			if c.comes.ClientID == "" {
				c.comes.ClientID = "client-of-sandbox"
			}
			s.issuer.identity = c.comes
			path, hash := s.invite(c.invited)
			b.wantResult(b.do("GET", b.allow(path)), c.heading)
			rec, connected := s.record(), c.heading == connectedPage
			if rec.Pin.ResourceOwner != c.ownedNow || (rec.Epoch == 2) != connected ||
				s.invitation(hash).UsedAt.IsZero() == connected {
				t.Errorf("pin %+v, epoch %d, invitation %+v", rec.Pin, rec.Epoch, s.invitation(hash))
			}
			if !connected && s.issuer.revoked == 0 {
				t.Error("the pair was not revoked")
			}
		})
	}
}

// The page names the owner of a connection, because anybody else would be refused.
func TestRenewalNamesTheAccount(t *testing.T) {
	s := newServer(t)
	b := s.browser()
	s.issuer.identity.Company = "7777777"
	path, _ := s.invite(rotation.Identity{Company: "7777777"})
	if page := want(t, b.do("GET", path), 200, invitePage); strings.Contains(page, "pat@example.com") {
		t.Error("a first invitation names an account")
	}
	b.wantResult(b.do("GET", b.allow(path)), connectedPage)
	for _, c := range []struct {
		name           string
		invited        rotation.Identity
		login, company string
	}{
		{"renewal", rotation.Identity{}, "pat@example.com", "7777777"},
		{"renewal for a new address", rotation.Identity{Login: "patricia@example.com"}, "patricia@example.com", "7777777"},
		{"anybody of the company", rotation.Identity{Repin: true}, "", "7777777"},
		{"another company", rotation.Identity{Repin: true, Company: "8888888"}, "", "8888888"},
	} {
		path, _ := s.invite(c.invited)
		page := want(t, b.do("GET", path), 200, renewPage)
		for _, login := range []string{"pat@example.com", "patricia@example.com"} {
			if strings.Contains(page, "<dd>"+login+"</dd>") != (login == c.login) {
				t.Errorf("%s: whether %s is on the page is wrong", c.name, login)
			}
		}
		if !strings.Contains(page, "<dd>number "+c.company+"</dd>") {
			t.Errorf("%s: the page does not name company %s", c.name, c.company)
		}
	}
	// The login on the page is not a condition: users keep their number when their address changes.
	s.issuer.identity.Login = "pat.jones@example.com"
	path, _ = s.invite(rotation.Identity{})
	b.wantResult(b.do("GET", b.allow(path)), connectedPage)
}

// Some servers answer a second consent of a user with the existing token
// (Doorkeeper's reuse_access_token). Revoking that would end the connection.
func TestRejectedCopyOfTheCurrentPairIsNotRevoked(t *testing.T) {
	s := newServer(t)
	b := s.browser()
	path, _ := s.invite(rotation.Identity{})
	b.wantResult(b.do("GET", b.allow(path)), connectedPage)
	s.issuer.answer = s.issuer.given
	path, _ = s.invite(rotation.Identity{Company: "8"})
	b.wantResult(b.do("GET", b.allow(path)), wrongAccountPage)
	s.sweep()
	if rec := s.record(); s.issuer.revoked != 0 || rec.Status != rotation.Active || rec.Epoch != 1 {
		t.Errorf("%d revocations, record %+v", s.issuer.revoked, rec)
	}
}

func TestWrongBrowserLeavesTheStateToTheRightOne(t *testing.T) {
	s := newServer(t)
	path, _ := s.invite(rotation.Identity{})
	right, other := s.browser(), s.browser()
	address := right.allow(path)
	other.start(path)
	other.cookies[0].Name = right.cookies[0].Name // a well-formed cookie, of another start
	s.store.made()
	want(t, other.do("GET", address), 400, refusedPage)
	if got := s.store.made(); got != "State" {
		t.Errorf("store calls: %s", got)
	}
	right.wantResult(right.do("GET", address), connectedPage)
}

func TestStoreFaultsBeforeTheExchangeCanBeRetried(t *testing.T) {
	for _, call := range []string{"State", "Consume"} {
		t.Run(call, func(t *testing.T) {
			s := newServer(t)
			path, _ := s.invite(rotation.Identity{})
			b := s.browser()
			address := b.allow(path)
			s.store.down = map[string]bool{call: true}
			answer := b.do("GET", address)
			want(t, answer, 503, unavailablePage)
			if answer.Header.Get("Retry-After") == "" || s.issuer.count() != 0 {
				t.Errorf("%d exchanges, header %v", s.issuer.count(), answer.Header)
			}
			s.store.down = nil
			b.wantResult(b.do("GET", address), connectedPage)
		})
	}
}

func TestMissingCredentialsLeaveTheState(t *testing.T) {
	s := newServer(t)
	path, _ := s.invite(rotation.Identity{})
	b := s.browser()
	address := b.allow(path)
	app := s.apps["sandbox"]
	delete(s.apps, "sandbox")
	want(t, b.do("GET", address), 503, unavailablePage)
	want(t, b.do("GET", path), 503, unavailablePage)
	want(t, b.do("POST", path), 503, unavailablePage)
	s.apps["sandbox"] = app
	b.wantResult(b.do("GET", address), connectedPage)
}

func TestRedirectURIMustLeadHere(t *testing.T) {
	s := newServer(t)
	path, _ := s.invite(rotation.Identity{})
	app := s.apps["sandbox"]
	app.RedirectURI = "http://localhost"
	s.apps["sandbox"] = app
	for _, method := range []string{"GET", "POST"} {
		page := want(t, s.browser().do(method, path), 503, linkUnusablePage)
		if !strings.Contains(page, "The link has to be sent again") || !strings.Contains(page, "reference number") {
			t.Errorf("%s: the page does not say what to do:\n%s", method, page)
		}
	}
	if !strings.Contains(s.log.String(), publicURL+"/callback/sandbox") {
		t.Errorf("the log does not say what to register:\n%s", s.log)
	}
}

// The write took effect and its answer was lost: no request may exchange after that.
func TestLostConsumeExchangesNothing(t *testing.T) {
	s := newServer(t)
	path, _ := s.invite(rotation.Identity{})
	b := s.browser()
	address := b.allow(path)
	s.store.lost = map[string]bool{"Consume": true}
	want(t, b.do("GET", address), 503, unavailablePage)
	s.store.lost = nil
	s.clock.advance(2 * time.Minute)
	b.wantResult(b.do("GET", address), failedPage)
	if s.issuer.count() != 0 {
		t.Errorf("%d exchanges", s.issuer.count())
	}
}

func TestResultIsShownEvenIfItCannotBeRecorded(t *testing.T) {
	s := newServer(t)
	path, _ := s.invite(rotation.Identity{})
	b := s.browser()
	address := b.allow(path)
	s.store.down = map[string]bool{"Conclude": true}
	b.wantResult(b.do("GET", address), connectedPage)
	if !strings.Contains(s.log.String(), "see the connection's history for it") {
		t.Errorf("log:\n%s", s.log)
	}
	s.clock.advance(2 * time.Minute)
	b.wantResult(b.do("GET", address), alreadyPage)
	want(t, b.do("GET", path), 410, alreadyPage)
	want(t, b.do("POST", path), 410, alreadyPage)
}

// A person who closes the tab during the exchange loses nothing.
func TestClosedTab(t *testing.T) {
	s := newServer(t)
	path, hash := s.invite(rotation.Identity{})
	b := s.browser()
	address := b.allow(path)
	ctx, cancel := context.WithCancel(t.Context())
	s.issuer.during = cancel
	b.do("GET", address, withContext(ctx))
	if s.record().Status != rotation.Active || s.invitation(hash).UsedAt.IsZero() {
		t.Errorf("record %+v, invitation %+v", s.record(), s.invitation(hash))
	}
	b.wantResult(b.do("GET", address), connectedPage)
}

func TestPlainLoopback(t *testing.T) {
	s := newServerAt(t, "http://localhost:8080")
	path, _ := s.invite(rotation.Identity{})
	b := s.browser()
	answer := b.do("GET", path)
	if answer.Header.Get("Strict-Transport-Security") != "" {
		t.Error("HSTS without TLS")
	}
	address := b.allow(path)
	if c := b.cookies[0]; strings.HasPrefix(c.Name, "__Host-") || c.Secure || !c.HttpOnly ||
		c.SameSite != http.SameSiteLaxMode {
		t.Errorf("cookie %s", c.Raw)
	}
	b.wantResult(b.do("GET", address), connectedPage)
}

func TestPublicURLWithAPath(t *testing.T) {
	for _, stripped := range []bool{true, false} {
		s := newServerAt(t, "https://tokens.example.com/prod")
		path, _ := s.invite(rotation.Identity{})
		b := s.browser()
		reach := func(r *http.Request) {
			if stripped {
				r.URL.Path = strings.TrimPrefix(r.URL.Path, "/prod")
			}
		}
		want(t, b.do("GET", path, reach), 200, invitePage)
		address := b.allow(path)
		answer := b.do("GET", address, reach)
		if got := answer.Header.Get("Location"); got != "https://tokens.example.com/prod/connected" {
			t.Errorf("redirected to %s", got)
		}
	}
}

// Disconnecting ends every earlier link, under way or not.
func TestDisconnectedConnection(t *testing.T) {
	s := newServer(t)
	path, _ := s.invite(rotation.Identity{})
	b := s.browser()
	underWay := b.allow(path)
	rec := s.record()
	rec.Epoch, rec.Status = rec.Epoch+1, rotation.Disconnected
	if _, err := s.files.Ledger().Write(t.Context(), rotation.Change{Record: rec}); err != nil {
		t.Fatal(err)
	}
	want(t, b.do("GET", path), 410, linkUnusablePage)
	want(t, b.do("POST", path), 410, linkUnusablePage)
	b.wantResult(b.do("GET", underWay), supersededPage)
	if s.issuer.count() != 0 {
		t.Errorf("%d exchanges", s.issuer.count())
	}
	again, _ := s.invite(rotation.Identity{})
	b.wantResult(b.do("GET", b.allow(again)), connectedPage)
}
