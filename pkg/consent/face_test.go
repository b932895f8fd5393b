package consent_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/consent"
	"github.com/tokenturn/tokenturn/pkg/rotation"
)

const (
	svgLogo = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><path d="M0 0h9v9z"></path></svg>`
	pngLogo = "\x89PNG\r\n\x1a\nand so on"
)

func dataURL(media, content string) string {
	return "data:" + media + ";base64," + base64.StdEncoding.EncodeToString([]byte(content))
}

// show gives the app of every environment a face.
func (s *server) show(face consent.Face, err error) {
	s.faces = func(context.Context, string) (consent.Face, error) {
		s.facesRead++
		return face, err
	}
	s.build()
}

func TestPageNamesBothParties(t *testing.T) {
	s := newServer(t)
	s.organization = "Acme Builders"
	s.show(consent.Face{Name: "Acme <Integrations>", Logo: dataURL("image/svg+xml", svgLogo)}, nil)
	path, _ := s.invite(rotation.Identity{})
	b := s.browser()
	answer := b.do("GET", path)
	page := want(t, answer, 200, invitePage)
	const address = "/logo/sandbox?v="
	for _, text := range []string{`<img src="` + address, "<span>Acme &lt;Integrations&gt;</span>", "<span>Procore</span>",
		"<strong>Acme Builders</strong> asks you to let its app <strong>Acme &lt;Integrations&gt;</strong> at " +
			"<strong>tokens.example.com</strong>", "Step 1 of 3"} {
		if !strings.Contains(page, text) {
			t.Errorf("no %q in:\n%s", text, page)
		}
	}
	if policy := answer.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "; img-src data: 'self';") {
		t.Errorf("policy %q", policy)
	}
	done := b.wantResult(b.do("GET", b.allow(path)), connectedPage)
	if policy := b.do("GET", "/connected").Header.Get("Content-Security-Policy"); !strings.Contains(policy,
		"; img-src data: 'self'; form-action 'none';") {
		t.Errorf("policy %q", policy)
	}
	if !strings.Contains(done, address) || !strings.Contains(done, "Step 3 of 3") {
		t.Errorf("page:\n%s", done)
	}
	if s.facesRead != 1 {
		t.Errorf("the face was read %d times within a minute", s.facesRead)
	}
}

// Without a name the owner's stands there, and without a logo its first letter.
func TestPageWithoutAFace(t *testing.T) {
	for name, prepare := range map[string]func(s *server){
		"nothing is given": func(*server) {},
		"an empty face":    func(s *server) { s.show(consent.Face{}, nil) },
		"a fault":          func(s *server) { s.show(consent.Face{}, errors.New("out of reach")) },
		"a broken logo":    func(s *server) { s.show(consent.Face{Logo: "https://example.com/logo.png"}, nil) },
	} {
		s := newServer(t)
		s.organization = "élan Builders"
		s.build()
		prepare(s)
		path, _ := s.invite(rotation.Identity{})
		page := want(t, s.browser().do("GET", path), 200, invitePage)
		for _, text := range []string{`aria-hidden="true">É</span><span>élan Builders</span>`,
			"asks you to let its automatic service at"} {
			if strings.Contains(page, "<img") || !strings.Contains(page, text) {
				t.Errorf("%s: no %q, or a logo, in:\n%s", name, text, page)
			}
		}
		want(t, s.browser().do("GET", "/logo/sandbox"), 404, notFoundPage)
	}
}

func TestLogo(t *testing.T) {
	for media, content := range map[string]string{"image/svg+xml": svgLogo, "image/png": pngLogo} {
		s := newServer(t)
		s.show(consent.Face{Logo: dataURL(media, content)}, nil)
		answer := s.browser().do("GET", "/logo/sandbox?v=1")
		if answer.StatusCode != 200 || body(t, answer) != content {
			t.Errorf("%s: status %d", media, answer.StatusCode)
		}
		for header, want := range map[string]string{"Content-Type": media, "X-Content-Type-Options": "nosniff",
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
			"Cache-Control":           "public, max-age=3600", "Cross-Origin-Resource-Policy": "same-origin"} {
			if got := answer.Header.Get(header); got != want {
				t.Errorf("%s: %s is %q", media, header, got)
			}
		}
	}
}

// What a person wrote into the secret by hand is served only if it looks like what
// `app set` stores.
func TestOtherLogosAreNotServed(t *testing.T) {
	for name, logo := range map[string]string{
		"none":             "",
		"an address":       "https://example.com/logo.png",
		"a page":           dataURL("text/html", "<svg onload=alert(1)>"),
		"a page as SVG":    dataURL("image/svg+xml", "<html><script>alert(1)</script></html>"),
		"a page as PNG":    dataURL("image/png", "<html>"),
		"two types":        "data:image/png,text/html;base64,iVBORw0KGgo=",
		"not base64":       "data:image/png;base64,%89PNG",
		"larger than ever": dataURL("image/png", pngLogo+strings.Repeat("x", 30_000)),
	} {
		s := newServer(t)
		s.show(consent.Face{Logo: logo}, nil)
		if answer := s.browser().do("GET", "/logo/sandbox"); answer.StatusCode != 404 ||
			answer.Header.Get("Content-Type") != "text/html; charset=utf-8" || answer.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: status %d, header %v", name, answer.StatusCode, answer.Header)
		}
	}
}

// Strangers who ask for logos cause few reads, and only of what may be an environment.
func TestLogoReadsAreBounded(t *testing.T) {
	s := newServer(t)
	s.show(consent.Face{}, rotation.ErrNoApplication)
	for range 10 {
		want(t, s.browser().do("GET", "/logo/sandbox"), 404, notFoundPage)
		want(t, s.browser().do("GET", "/logo/No-Such"), 404, notFoundPage)
		want(t, s.browser().do("GET", "/logo/a/b"), 404, notFoundPage)
		want(t, s.browser().do("GET", "/logo/"), 404, notFoundPage)
	}
	if s.facesRead != 1 {
		t.Errorf("%d reads", s.facesRead)
	}
	s.clock.advance(time.Minute)
	want(t, s.browser().do("GET", "/logo/sandbox"), 404, notFoundPage)
	if s.facesRead != 2 {
		t.Errorf("%d reads after a minute", s.facesRead)
	}
	if calls := s.store.made(); calls != "" {
		t.Errorf("the consent store was asked: %s", calls)
	}
}

// A renewal says so, since when and why; and the company's name is known from before.
func TestRenewalSaysWhatHappened(t *testing.T) {
	s := newServer(t)
	s.issuer.identity.Company = "4264807"
	b := s.browser()
	expect := rotation.Identity{Company: "4264807", CompanyName: "Hawthorne & Sons"}
	path, _ := s.invite(expect)
	const company = "<dd>Hawthorne &amp; Sons (number 4264807)</dd>"
	if page := want(t, b.do("GET", path), 200, invitePage); !strings.Contains(page, company) || strings.Contains(page,
		"renewal") {
		t.Errorf("page:\n%s", page)
	}
	if page := b.wantResult(b.do("GET", b.allow(path)), connectedPage); !strings.Contains(page, company) ||
		!strings.Contains(page, "<dd>pat@example.com</dd>") || !strings.Contains(page, "<dd>sandbox/acme</dd>") ||
		!strings.Contains(page, "close this window") {
		t.Errorf("page:\n%s", page)
	}
	for _, c := range []struct {
		status rotation.Status
		text   string
	}{
		{rotation.Active, "<strong>This is a renewal.</strong> The connection works now."},
		{rotation.NeedsConsent, `lost its access on <time datetime="2026-11-20">November 20, 2026</time>, because Procore ` +
			"no longer accepts the permission"},
		{rotation.Disconnected, "somebody disconnected it"},
	} {
		rec := s.record()
		rec.Status, rec.Refusal = c.status, nil
		if c.status == rotation.NeedsConsent {
			rec.Refusal = &rotation.Refusal{At: time.Date(2026, 11, 20, 23, 30, 0, 0, time.UTC)}
		}
		if _, err := s.files.Ledger().Write(t.Context(), rotation.Change{Record: rec}); err != nil {
			t.Fatal(err)
		}
		path, _ := s.invite(rotation.Identity{})
		page := want(t, b.do("GET", path), 200, renewPage)
		if !strings.Contains(page, c.text) || !strings.Contains(page, company) {
			t.Errorf("%s: page:\n%s", c.status, page)
		}
	}
}

// A name belongs to one company.
func TestAnotherCompanyHasNoNameYet(t *testing.T) {
	s := newServer(t)
	s.issuer.identity.Company = "7"
	b := s.browser()
	path, _ := s.invite(rotation.Identity{Company: "7", CompanyName: "Hawthorne"})
	b.wantResult(b.do("GET", b.allow(path)), connectedPage)
	s.issuer.identity.Company = "8"
	path, _ = s.invite(rotation.Identity{Company: "8", Repin: true})
	for _, page := range []string{want(t, b.do("GET", path), 200, renewPage),
		b.wantResult(b.do("GET", b.allow(path)), connectedPage)} {
		if strings.Contains(page, "Hawthorne") || !strings.Contains(page, "<dd>number 8</dd>") {
			t.Errorf("page:\n%s", page)
		}
	}
}

// Only the browser that finished sees a result, and for an hour.
func TestResultIsForTheBrowserThatFinished(t *testing.T) {
	s := newServer(t)
	b, other := s.browser(), s.browser()
	path, _ := s.invite(rotation.Identity{})
	address := b.allow(path)
	want(t, b.do("GET", "/connected"), 200, nothingPage) // started, not finished
	b.wantResult(b.do("GET", address), connectedPage)
	want(t, other.do("GET", "/connected"), 200, nothingPage)

	var result *http.Cookie
	for _, c := range b.cookies {
		if strings.Contains(c.Name, "result") {
			result = c
		}
	}
	if result == nil || !strings.HasPrefix(result.Name, "__Host-") || !result.Secure || !result.HttpOnly ||
		result.MaxAge != 3600 || result.SameSite != http.SameSiteLaxMode || result.Path != "/" {
		t.Fatalf("cookie %v", result)
	}
	hash, secret, _ := strings.Cut(result.Value, ".")
	for name, value := range map[string]string{"the hash alone": hash, "another secret": hash + "." + otherSecret,
		"another state": strings.Repeat("0", 64) + "." + secret, "no hash": "." + secret, "nothing": ""} {
		other.cookies = []*http.Cookie{{Name: result.Name, Value: value}}
		page := want(t, other.do("GET", "/connected?result=verifying&reference=ABCD-2345"), 200, nothingPage)
		if strings.Contains(page, "acme") || strings.Contains(page, "ABCD") {
			t.Errorf("%s: page:\n%s", name, page)
		}
	}

	// A consent that failed leaves no result to thank for.
	denied := s.browser()
	again, _ := s.invite(rotation.Identity{})
	request := denied.start(again)
	answer := denied.do("GET", callback(map[string][]string{"error": {"access_denied"}, "state": request["state"]}))
	denied.wantResult(answer, deniedPage)
	want(t, denied.do("GET", "/connected"), 200, nothingPage)

	// If the state cannot be read, the browser is not told that nothing was connected.
	s.store.down = map[string]bool{"State": true}
	page := want(t, b.do("GET", "/connected"), 200, connectedPage)
	if strings.Contains(page, "pat@example.com") {
		t.Error("the page names an account without having read the state")
	}
	s.store.down = nil

	// After another change of the connection the page names nobody.
	rec := s.record()
	rec.Epoch++
	if _, err := s.files.Ledger().Write(t.Context(), rotation.Change{Record: rec}); err != nil {
		t.Fatal(err)
	}
	if page := want(t, b.do("GET", "/connected"), 200, connectedPage); strings.Contains(page, "pat@example.com") {
		t.Error("the page names an account of another consent")
	}
}
