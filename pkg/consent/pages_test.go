package consent_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/consent"
	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func hashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func TestHeadersOfEveryAnswer(t *testing.T) {
	s := newServer(t)
	path, _ := s.invite(rotation.Identity{})
	b := s.browser()
	answers := map[string]*http.Response{
		"invitation": b.do("GET", path),
		"start":      b.do("POST", path),
		"refusal":    b.do("GET", "/callback/sandbox"),
		"callback":   b.do("GET", b.allow(path)),
		"result":     b.do("GET", "/connected"),
		"health":     b.do("GET", "/healthz"),
		"nothing":    b.do("GET", "/nothing"),
		"method":     b.do("DELETE", "/connected"),
		"host":       b.do("GET", "/connected", func(r *http.Request) { r.Host = "evil.example.com" }),
	}
	for name, answer := range answers {
		for header, value := range map[string]string{
			"Cache-Control":                "no-store",
			"Referrer-Policy":              "no-referrer",
			"X-Content-Type-Options":       "nosniff",
			"Cross-Origin-Opener-Policy":   "same-origin",
			"Cross-Origin-Resource-Policy": "same-origin",
			"Strict-Transport-Security":    "max-age=31536000",
			"X-Frame-Options":              "DENY",
			"X-Robots-Tag":                 "noindex, nofollow",
		} {
			if got := answer.Header.Get(header); got != value {
				t.Errorf("%s: %s is %q", name, header, got)
			}
		}
		policy := answer.Header.Get("Content-Security-Policy")
		formAction := "form-action 'none'"
		if name == "invitation" {
			formAction = "form-action 'self' https:"
		}
		for _, directive := range []string{"default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'", formAction} {
			if !strings.Contains(policy+";", directive+";") {
				t.Errorf("%s: no %s in %q", name, directive, policy)
			}
		}
		if strings.Contains(policy, "unsafe") {
			t.Errorf("%s: policy %q", name, policy)
		}
	}
}

// everyPage returns each page as a browser gets it.
func everyPage(t *testing.T) map[string]*http.Response {
	s := newServer(t)
	s.organization = "Acme Builders"
	s.build()
	b := s.browser()
	used, _ := s.invite(rotation.Identity{})
	b.wantResult(b.do("GET", b.allow(used)), connectedPage)
	expired, _ := s.invite(rotation.Identity{})
	s.clock.advance(invitations.DefaultLifetime)
	other := token.Connection{Environment: "sandbox", Name: "other"}
	s.register(other)
	expect := rotation.Identity{Login: "pat@example.com", Company: "562949953425831", CompanyName: "Acme Construction"}
	first, _ := s.inviteTo(other, expect)
	again, _ := s.invite(expect)
	all := map[string]*http.Response{
		invitePage:       b.do("GET", first),
		renewPage:        b.do("GET", again),
		nothingPage:      s.browser().do("GET", "/connected"),
		linkUsedPage:     b.do("GET", used),
		linkExpiredPage:  b.do("GET", expired),
		linkUnusablePage: b.do("GET", "/connect/x"),
		refusedPage:      b.do("GET", "/callback/sandbox"),
		notFoundPage:     b.do("GET", "/"),
		connectedPage:    b.do("GET", "/connected"),
	}
	for heading, result := range map[string]string{verifyingPage: "verifying", notInstalledPage: "not-installed",
		alreadyPage: "already-connected"} {
		b.setResult(result)
		all[heading] = b.do("GET", "/connected?result="+result+"&reference=ABCD-2345")
	}
	for heading, result := range map[string]string{deniedPage: "denied", wrongAccountPage: "wrong-account",
		supersededPage: "superseded", failedPage: "failed", unavailablePage: "unavailable"} {
		all[heading] = b.do("GET", "/not-connected?result="+result+"&reference=ABCD-2345")
	}
	return all
}

// setResult gives the state that this browser finished last another result.
func (b *browser) setResult(result string) {
	t := b.server.t
	t.Helper()
	for _, c := range b.cookies {
		hash, _, found := strings.Cut(c.Value, ".")
		if !found {
			continue
		}
		state, err := b.server.store.Store.State(t.Context(), hash)
		if err == nil {
			err = b.server.store.Store.Conclude(t.Context(), state, result, false, b.server.clock.Now())
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatal("this browser has finished nothing")
}

func TestPagesAreWhole(t *testing.T) {
	style := regexp.MustCompile(`(?s)<style>(.*?)</style>`)
	for heading, answer := range everyPage(t) {
		page := body(t, answer)
		if got := title(t, page); got != heading {
			t.Errorf("page %q, want %q", got, heading)
		}
		for _, part := range []string{"<!DOCTYPE html>", `<html lang="en">`, "<title>" + heading + "</title>", "</main>",
			`name="viewport" content="width=device-width, initial-scale=1"`, "</html>", "<link ",
			`<link rel="icon" href="data:image/svg&#43;xml;base64,`} {
			if strings.Count(page, part) != 1 {
				t.Errorf("%s: not exactly one %s", heading, part)
			}
		}
		explains := slices.Contains([]string{invitePage, renewPage, connectedPage}, heading)
		if strings.Count(page, "<h1>") != 1 || !explains && !strings.Contains(page, "<h2>What to do now</h2>") {
			t.Errorf("%s does not say what to do", heading)
		}
		for _, foreign := range []string{"<script", "<img", "<iframe", "http:", "https:", " style=", "{{",
			"ZgotmplZ", "<no value>"} {
			if strings.Contains(page, foreign) {
				t.Errorf("%s contains %s", heading, foreign)
			}
		}
		if regexp.MustCompile(`<[^>]*\son[a-z]+=`).MatchString(page) {
			t.Errorf("%s has an event handler", heading)
		}
		sum := sha256.Sum256([]byte(style.FindStringSubmatch(page)[1]))
		if want := "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'"; !strings.Contains(answer.Header.Get("Content-Security-Policy"), want) {
			t.Errorf("%s: its style sheet is not the one of the policy", heading)
		}
		if got := answer.Header.Get("Content-Length"); got != strconv.Itoa(len(page)) {
			t.Errorf("%s: Content-Length %s of %d", heading, got, len(page))
		}
		if !strings.Contains(page, "This page belongs to Acme Builders, at tokens.example.com.") {
			t.Errorf("%s does not name its owner", heading)
		}
		if before, _, form := strings.Cut(page, "<form"); form && !strings.Contains(before, "<h2>What you would allow</h2>") {
			t.Errorf("%s has its button before the list of what it allows", heading)
		}
		if len(page) > 20_000 {
			t.Errorf("%s has %d bytes", heading, len(page))
		}
	}
	assets := 0
	err := fs.WalkDir(os.DirFS("pages"), ".", func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		assets += int(info.Size())
		return err
	})
	if err != nil || assets > 30_000 {
		t.Errorf("the pages' assets have %d bytes, %v", assets, err)
	}
}

// The operator finds every page that people report in the runbook.
func TestRunbookNamesEveryPage(t *testing.T) {
	runbook, err := os.ReadFile("../../infra/runbooks/connect.md")
	if err != nil {
		t.Fatal(err)
	}
	for heading := range everyPage(t) {
		good := heading == invitePage || heading == renewPage || heading == connectedPage || heading == notFoundPage
		if !good && !strings.Contains(string(runbook), heading) {
			t.Errorf("the runbook does not say what to do about %q", heading)
		}
	}
}

// The result pages show only their own texts, whatever the address says.
func TestResultPagesRepeatNothing(t *testing.T) {
	s := newServer(t)
	for _, c := range []struct{ path, heading string }{
		{"/connected", nothingPage},
		{"/connected?result=canary", nothingPage},
		{"/connected?result=denied", nothingPage},
		{"/connected?result=verifying&reference=ABCD-2345", nothingPage},
		{"/not-connected", failedPage},
		{"/not-connected?result=connected", failedPage},
		{"/not-connected?result=denied&result=failed", failedPage},
		{"/not-connected?result=failed&reference=CANA-RY<b>", failedPage},
		{"/not-connected?result=failed&reference=ABCD-2345%0Acanary", failedPage},
		{"/not-connected?result=canary&reference=%zz", failedPage},
		{"/not-connected?x=" + strings.Repeat("canary", 10_000), failedPage},
		{"/not-connected?connection=canary&message=canary", failedPage},
	} {
		page := want(t, s.browser().do("GET", c.path), 200, c.heading)
		if strings.Contains(strings.ToLower(page), "cana") {
			t.Errorf("%.60s is repeated", c.path)
		}
		if strings.Contains(page, "<strong>") {
			t.Errorf("%.60s has a reference", c.path)
		}
	}
	if s.store.made() != "" {
		t.Error("a store was asked")
	}
}

func TestForeignTextIsEscaped(t *testing.T) {
	s := newServer(t)
	path, _ := s.invite(rotation.Identity{Login: `<img src=x>"'&`, Company: "</dd><script>"})
	page := want(t, s.browser().do("GET", path), 200, invitePage)
	if strings.Contains(page, "<img") || strings.Contains(page, "<script") || !strings.Contains(page,
		"&lt;img src=x&gt;") {
		t.Errorf("page:\n%s", page)
	}
}

// Pages name their owner, in the operator's words if there are any.
func TestOrganization(t *testing.T) {
	s := newServer(t)
	path, _ := s.invite(rotation.Identity{})
	page := want(t, s.browser().do("GET", path), 200, invitePage)
	for _, text := range []string{
		"You have been asked to let the automatic service at <strong>tokens.example.com</strong>",
		"belongs to the service at tokens.example.com"} {
		if !strings.Contains(page, text) {
			t.Errorf("no %q in:\n%s", text, page)
		}
	}
	s.organization = "<b>Müller & Söhne</b>"
	s.build()
	page = want(t, s.browser().do("GET", path), 200, invitePage)
	const name = "&lt;b&gt;Müller &amp; Söhne&lt;/b&gt;"
	for _, text := range []string{"<strong>" + name + "</strong> asks you to let its automatic service at " +
		"<strong>tokens.example.com</strong>", "belongs to " + name} {
		if !strings.Contains(page, text) {
			t.Errorf("no %q in:\n%s", text, page)
		}
	}
	for _, bad := range []string{strings.Repeat("ü", 81), "Acme\nBuilders", "\xff"} {
		if consent.CheckOrganization(bad) == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if err := consent.CheckOrganization(strings.Repeat("ü", 80)); err != nil {
		t.Error(err)
	}
}
