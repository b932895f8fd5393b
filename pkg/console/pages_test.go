package console_test

import (
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/console"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// TestOverview has a connection in each state.
func TestOverview(t *testing.T) {
	s := open(t, nil)
	named := func(name string, change func(*rotation.Record)) {
		rec := active(token.Connection{Environment: "sandbox", Name: name}, 12)
		change(&rec)
		s.put(rec)
	}
	now := time.Now()
	named("active", func(r *rotation.Record) {})
	named("consent", func(r *rotation.Record) {
		r.Status, r.Refusal = rotation.NeedsConsent, &rotation.Refusal{At: now, NextAt: now.Add(time.Hour)}
	})
	named("quarantine", func(r *rotation.Record) { r.Quarantined = true })
	named("config", func(r *rotation.Record) {
		r.Failures = []rotation.Failure{{Step: "redeem", Class: "config", Count: 1, NextAt: now,
			Detail: "the server does not accept the app credentials of sandbox: run `tokenturn app set sandbox` <now>"}}
	})
	named("retrying", func(r *rotation.Record) {
		r.Failures = []rotation.Failure{{Step: "redeem", Class: "store", Count: 2, NextAt: now, Detail: "table is down"}}
	})
	named("rotating", func(r *rotation.Record) {
		r.Attempt = &rotation.Attempt{ID: "a", BegunAt: now, Until: now.Add(time.Minute)}
	})
	named("overdue", func(r *rotation.Record) {
		r.Attempt = &rotation.Attempt{ID: "a", BegunAt: now.Add(-time.Minute), Until: now}
	})
	named("expired", func(r *rotation.Record) { r.Current.ExpiresAt = now.Add(-time.Minute) })
	named("publishing", func(r *rotation.Record) { r.Published, r.Current.SavedAt = "older", now })
	named("off", func(r *rotation.Record) { r.Status, r.Current = rotation.Disconnected, nil })
	named("pending", func(r *rotation.Record) { *r = rotation.Record{Connection: r.Connection, Status: rotation.Pending} })
	named("checking", func(r *rotation.Record) {
		*r = rotation.Record{Connection: r.Connection, Status: rotation.Pending, Failures: []rotation.Failure{{Step: "decide",
			Class: "issuer", Count: 1, Detail: "the app is not installed in the company"}}}
	})
	named("service", func(r *rotation.Record) {
		r.ServiceAccount, r.Pin = true, &rotation.Pin{Company: "7", CompanyName: "Northwind"}
	})
	page := s.get("/").body
	for name, want := range map[string]string{"active": `good">active<.*pat@example.com.*company 4264807.*generation 1\.12`,
		"consent": `bad">needs consent<.*also tries the old token again`, "quarantine": `bad">quarantined<`,
		"config": `bad">misconfigured<`, "retrying": `warn">waiting to retry<.*Redeem failed 2 times in a row \(store\): table is down`,
		"rotating": `info">rotating<`, "overdue": `warn">response overdue<`, "expired": `bad">access token expired<.*expired 60 s ago`,
		"publishing": `info">publishing<`, "off": `off">disconnected<`, "pending": `info">waiting for consent<`,
		"checking": `warn">checking the consent<.*not installed`, "service": `good">active<.*service account.*Northwind, company 7`} {
		row := regexp.MustCompile(`data-row="sandbox/` + name + `".*`).FindString(page)
		if !regexp.MustCompile(want).MatchString(html.UnescapeString(row)) {
			t.Errorf("the row of %s is %s", name, row)
		}
	}
	attention := page[strings.Index(page, `id="attention"`):strings.Index(page, `id="connections"`)]
	mustContain(t, attention, `formaction="/connections/sandbox/consent/invite">Create a consent link`,
		`href="/connections/sandbox/quarantine#quarantine">Decide`, `formaction="/connections/sandbox/config/rotate">Try again now`,
		`formaction="/connections/sandbox/expired/rotate">Rotate now`,
		`formaction="/connections/sandbox/pending/invite">Create a consent link`, "infra/runbooks/needs-consent.md",
		"infra/runbooks/secret-reset.md", "pat@example.com (Procore user 17) must allow access again",
		"<code>tokenturn app set sandbox</code> &lt;now&gt;")
	mustNotContain(t, attention, "sandbox/active", "sandbox/retrying")
	if strings.Index(attention, "sandbox/consent") > strings.Index(attention, "sandbox/pending") {
		t.Error("the most urgent one is not the first")
	}
	mustContain(t, page, "4 in trouble", "3 recovering", "1 disconnected", "every 60 min")
}

// TestNoticesAreOnTheOverview asserts what the page of notices before it asserted.
func TestNoticesAreOnTheOverview(t *testing.T) {
	s := open(t, nil)
	s.put(active(acme, 1))
	mustContain(t, s.get("/").body, "There were no notices", "No connection needs a person")
	rec := active(acme, 1)
	rec.Status = rotation.NeedsConsent
	s.put(rec)
	s.notify(rotation.Notice{Kind: rotation.NoticeNeedsConsent, Connection: acme, Summary: "pat <b>must</b> allow again",
		Link: token.NewSecret("http://localhost:8080/connect/" + canary), At: time.Now()})
	s.notify(rotation.Notice{Kind: rotation.NoticeConfigError, Environment: "sandbox", Summary: "wrong secret",
		At: time.Now()})
	page := s.get("/").body
	mustContain(t, page, "needs consent</strong>", "pat &lt;b&gt;must&lt;/b&gt; allow again",
		"config error</strong> sandbox", "wrong secret", "does not show that link", `formaction="/connections/sandbox/acme/invite"`)
	mustNotContain(t, page, canary)
	if strings.Index(page, "wrong secret") > strings.Index(page, "allow again") {
		t.Error("the oldest notice is the first")
	}
	if got := s.get("/notices"); got.status != http.StatusSeeOther || got.header.Get("Location") != "/#notices" {
		t.Errorf("/notices: %d %s", got.status, got.header.Get("Location"))
	}
	page = s.get("/connections/sandbox/acme").body
	history := page[strings.Index(page, `id="history"`):]
	mustContain(t, history, "pat &lt;b&gt;must&lt;/b&gt; allow again", "does not show that link",
		`formaction="/connections/sandbox/acme/invite"`)
	mustNotContain(t, page, canary)
	s.put(active(acme, 2))
	mustNotContain(t, s.get("/").body, "formaction") // it no longer needs a link
	for range 100 {
		s.notify(rotation.Notice{Kind: rotation.NoticeUnknown, Connection: acme, At: time.Now()})
	}
	mustContain(t, s.get("/").body, "90 older notices are")
	none := open(t, func(cfg *console.Config) { cfg.Notices = nil })
	mustContain(t, none.get("/").body, "keeps no notices")
}

func TestWithoutConnectionsThePageSaysHowToBegin(t *testing.T) {
	s := open(t, func(cfg *console.Config) {
		cfg.Command, cfg.RedirectURI = "tokenturn --data /x", "http://localhost:8080/callback/sandbox"
	})
	mustContain(t, s.get("/").body, "Three steps", "tokenturn --data /x app set sandbox", "connection invite sandbox/acme",
		"http://localhost:8080/callback/sandbox")
}

func TestFindFilterAndSort(t *testing.T) {
	s := open(t, nil)
	for i, c := range []token.Connection{acme, bolt, core, fine} {
		rec := active(c, int64(i))
		rec.Pin.Login, rec.Pin.Company = c.Name+"-user@example.com", fmt.Sprint(100+i)
		rec.Current.ExpiresAt = rec.Current.ExpiresAt.Add(-time.Duration(i) * time.Minute)
		if c == core {
			rec.Status = rotation.NeedsConsent
		}
		s.put(rec)
	}
	for query, want := range map[string]string{"": "acme bolt core fine", "q=BOLT-user": "bolt", "q=102": "core",
		"q=sandbox/f": "fine", "q=nothing": "", "status=attention": "core", "status=active": "acme bolt fine",
		"status=disconnected": "", "sort=expires": "fine core bolt acme", "sort=status": "core acme bolt fine",
		"q=needs&sort=due&status=attention": "core", "status=nonsense&sort=nonsense&page=nonsense": "acme bolt core fine",
		"page=7": "acme bolt core fine"} {
		var got []string
		for _, found := range regexp.MustCompile(`data-row="sandbox/([a-z]+)"`).FindAllStringSubmatch(s.get("/?"+query).body, -1) {
			got = append(got, found[1])
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q shows %v, want %s", query, got, want)
		}
	}
	page := s.get("/?q=%3Cscript%3E&status=trouble&sort=due").body
	mustContain(t, page, `value="&lt;script&gt;"`, `<option value="trouble" selected>`, `<option value="due" selected>`,
		"No connection matches")
	for _, path := range []string{"/", "/events"} {
		if got := s.get(path + "?q=" + strings.Repeat("x", 3000)); got.status != http.StatusBadRequest {
			t.Errorf("a long query of %s: %d", path, got.status)
		}
	}
}

func TestPagesOfTheList(t *testing.T) {
	s := open(t, nil)
	for i := range 205 {
		s.put(active(token.Connection{Environment: "sandbox", Name: fmt.Sprintf("c%03d", i)}, 1))
	}
	mustContain(t, s.get("/").body, "1 to 100 of 205", `href="/?page=2">Next page`)
	page := s.get("/?page=2&q=c").body
	mustContain(t, page, "101 to 200 of 205", `href="/?page=3&amp;q=c">Next page`, `href="/?q=c">Previous page`, "sandbox/c100")
	mustNotContain(t, page, `data-row="sandbox/c099"`, `data-row="sandbox/c200"`)
	mustNotContain(t, s.get("/?page=3").body, "Next page")
}

// TestOneConnection draws a life with everything in it.
func TestOneConnection(t *testing.T) {
	s := open(t, nil)
	now := time.Now().UTC().Truncate(time.Second)
	at := func(minutes int) time.Time { return now.Add(-10 * time.Hour).Add(time.Duration(minutes) * time.Minute) }
	event := func(minutes int, kind, detail string, generation int64, expires int) rotation.Event {
		e := rotation.Event{At: at(minutes), Kind: kind, Detail: detail, Epoch: 1, Generation: generation}
		if expires > 0 {
			e.ExpiresAt = at(expires)
		}
		return e
	}
	rec := active(acme, 4)
	rec.Failures = []rotation.Failure{{Step: "publish", Class: "store", Count: 3,
		NextAt: now.Add(time.Minute), Detail: "denied"}}
	s.put(rec, event(0, "registered", "", 0, 0), event(10, "decided", "code", 0, 100),
		event(11, "published", "version 0123456789abcdef", 0, 0),
		event(70, "decided", "refresh", 1, 160), event(71, "published", "version 1", 1, 0), // an overlap
		event(130, "ended", "its answer was lost, and no successor is saved anywhere", 1, 0), // a gap from 160 to 200
		event(200, "decided", "refresh", 2, 290), event(200, "published", "version 2", 2, 0),
		event(250, "needs_consent", "invalid_grant <b>", 2, 0),
		event(280, "decided", "refresh", 3, 370), event(281, "published", "version 3", 3, 0),
		event(300, "quarantined", "two tokens", 3, 0),
		event(340, "adopted", "the secret store was ahead of the ledger", 4, 690))
	s.notify(rotation.Notice{Kind: rotation.NoticeRecovered, Connection: acme, Summary: "works again", At: at(281)})
	s.notify(rotation.Notice{Kind: rotation.NoticeRecovered, Connection: bolt, Summary: "OF ANOTHER ONE", At: at(281)})
	page := s.get("/connections/sandbox/acme").body
	mustContain(t, page, "Its life", "mark consent", "mark redeem", "mark recovery", "mark publish", "mark unknown",
		"mark refused",
		"mark notice", "1 gap without a valid token", `class="rest"`, `class="gap"`, `class="ahead"`, "Generation 1.2: from",
		"Unknown: the response was lost", "Redeem: a new token pair is saved", "Recovery: a token pair was found",
		"Recovery: a new token pair is saved",
		"invalid_grant &lt;b&gt;", "pat@example.com", "company 4264807", "Publish failed 3 times in a row (store): denied.",
		"tokenturn token print sandbox/acme", "tokenturn token exec sandbox/acme -- ./report",
		"process.env.PROCORE_ACCESS_TOKEN",
		"os.environ", "os.Getenv", `formaction="/connections/sandbox/acme/rotate"`, "Invite again",
		`action="/connections/sandbox/acme/disconnect"`, "generation 1.4")
	mustNotContain(t, page, "OF ANOTHER ONE", "End the quarantine")
	for _, svg := range regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1) {
		decoder := xml.NewDecoder(strings.NewReader(html.UnescapeString(strings.ReplaceAll(svg, "&lt;", ""))))
		for {
			if _, err := decoder.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v in %s", err, svg)
			}
		}
		mustNotContain(t, svg, "NaN", "Inf", `width="-`)
	}
	if got := s.get("/connections/sandbox/nobody"); got.status != http.StatusNotFound {
		t.Errorf("a connection that does not exist: %d", got.status)
	}
}

// TestReadersHaveTheTokenBefore: while a new token pair is not published, the pages judge a
// connection by the access token that programs get.
func TestReadersHaveTheTokenBefore(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	history := func(expires time.Time) []rotation.Event {
		return []rotation.Event{
			{At: now.Add(-100 * time.Minute), Kind: "decided", Detail: "code", Epoch: 1, Generation: 3, ExpiresAt: expires},
			{At: now.Add(-99 * time.Minute), Kind: "published", Detail: "version old", Epoch: 1, Generation: 3},
			{At: now.Add(-10 * time.Minute), Kind: "decided", Detail: "refresh", Epoch: 1, Generation: 4,
				ExpiresAt: now.Add(80 * time.Minute)}}
	}
	row := func(s *site, c token.Connection) string {
		return html.UnescapeString(regexp.MustCompile(`data-row="` + c.String() + `".*`).FindString(s.get("/").body))
	}
	s := open(t, nil)
	for c, expires := range map[token.Connection]time.Time{acme: now.Add(-time.Minute), bolt: now.Add(5 * time.Minute)} {
		rec := active(c, 4)
		rec.Published = "old"
		s.put(rec, history(expires)...)
	}
	rec := active(core, 4)
	rec.Published = "unheard-of"
	s.put(rec)
	for c, want := range map[token.Connection]string{
		acme: `bad">access token expired<.*generation 1\.3.*expired 6[0-9] s ago`,
		bolt: `warn">publish overdue<.*programs do not get it yet.*generation 1\.3.*(expires in (4|5) min|29[0-9] s)`,
		core: `warn">publish overdue<.*Access token">–<`} {
		if got := row(s, c); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("the row of %s is %s", c, got)
		}
	}
	mustContain(t, s.get("/").body, "A newer one is saved, and not published yet")
	page := s.get("/connections/sandbox/acme").body
	mustContain(t, page, "access token expired", "1 gap without a valid token", "Generation 1.3: from")
	mustNotContain(t, page, "Generation 1.4: from")
	// A token that was published while somebody looked needs no history.
	known := active(fine, 3)
	known.Current.VersionID, known.Published, known.Current.ExpiresAt = "old", "old", now.Add(-time.Second)
	s.put(known)
	s.get("/")
	known = active(fine, 4)
	known.Published = "old"
	s.put(known)
	if got := row(s, fine); !strings.Contains(got, "access token expired") {
		t.Errorf("the row is %s", got)
	}
}

func TestReadingInAWS(t *testing.T) {
	s := open(t, func(cfg *console.Config) {
		cfg.SecretPrefix, cfg.PutsPerDay, cfg.Installation = "acme/tokens", 80, "blue in us-east-1"
	})
	rec := active(acme, 4)
	rec.Puts = []int64{time.Now().Add(-25 * time.Hour).Unix(), time.Now().Add(-time.Hour).Unix(), time.Now().Unix()}
	s.put(rec)
	page := html.UnescapeString(s.get("/connections/sandbox/acme").body)
	// Package tokensource sends no token to another host than that of the document.
	mustContain(t, page, `client.Get(document.APIURL + "/rest/v1.0/me")`)
	mustNotContain(t, page, "https://api.procore.com", "https://sandbox.procore.com")
	mustContain(t, page,
		"acme/tokens/connection/sandbox/acme", "2 of 80", "<strong>blue in us-east-1</strong>",
		`tokensource.New(secretsmanager.NewFromConfig(cfg), "sandbox/acme", tokensource.WithPrefix("acme/tokens"))`,
		`Connection("sandbox/acme", prefix="acme/tokens")`, `new Connection("sandbox/acme", "acme/tokens")`,
		"PROCORE_PREFIX=acme/tokens\nprocore /rest/v1.0/me")
}

func TestAStoreThatIsDown(t *testing.T) {
	s := open(t, nil)
	s.put(active(acme, 1))
	o, one := s.follow(""), s.stream("/events?connection=sandbox/acme&boot="+s.boot()+"&seq=0")
	o.update(t)
	one.update(t)
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
	if u := o.update(t); !strings.Contains(u.Parts["fault"], "not up to date") {
		t.Errorf("%+v", u)
	}
	if u := one.update(t); !u.Stale {
		t.Errorf("the page of one: %+v", u)
	}
	mustContain(t, s.get("/").body, "not up to date", "sandbox/acme") // what was known last
	if got := s.get("/connections/sandbox/acme"); got.status != http.StatusServiceUnavailable {
		t.Errorf("the page of one: %d", got.status)
	}
	fresh := open(t, nil)
	fresh.store.Close()
	if got := fresh.get("/"); got.status != http.StatusServiceUnavailable {
		t.Errorf("with nothing known: %d", got.status)
	}
}
