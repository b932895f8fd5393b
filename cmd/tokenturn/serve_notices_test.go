package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// rows is a ledger of which the page needs the list alone.
type rows struct {
	ledger
	records []rotation.Record
	err     error
}

func (r rows) List(context.Context) ([]rotation.Record, error) { return r.records, r.err }

func TestNoticesAreOnAPageOfThisMachine(t *testing.T) {
	acme, bolt := token.Connection{Environment: "sandbox", Name: "acme"}, token.Connection{Environment: "sandbox",
		Name: "bolt"}
	b := &noticeBoard{host: "localhost:8080", ledger: rows{records: []rotation.Record{
		{Connection: acme, Status: rotation.NeedsConsent},
		{Connection: bolt, Status: rotation.Active, Failures: []rotation.Failure{{Class: "config",
			Detail: "run `tokenturn app set sandbox`"}}},
		{Connection: token.Connection{Environment: "sandbox", Name: "core"}, Status: rotation.Active, Quarantined: true},
		{Connection: token.Connection{Environment: "sandbox", Name: "fine"}, Status: rotation.Active},
	}}}
	_ = b.Notify(t.Context(), rotation.Notice{Kind: rotation.NoticeNeedsConsent, Connection: acme,
		Summary: "pat <b>must</b> allow again",
		Link:    token.NewSecret("http://localhost:8080/connect/CANARY"), At: time.Now()})
	_ = b.Notify(t.Context(), rotation.Notice{Kind: rotation.NoticeConfigError, Environment: "sandbox",
		Summary: "wrong secret", At: time.Now()})
	served := b.wrap(http.NotFoundHandler())
	from := "127.0.0.1:50000"
	get := func(method, host, path string) *httptest.ResponseRecorder {
		answer, request := httptest.NewRecorder(), httptest.NewRequest(method, "http://"+host+path, nil)
		request.RemoteAddr = from
		served.ServeHTTP(answer, request)
		return answer
	}
	page := get("GET", "localhost:8080", "/notices")
	for _, want := range []string{"<strong>sandbox/acme</strong> needs consent: <code>tokenturn connection invite " +
		"sandbox/acme</code>",
		"<strong>sandbox/bolt</strong> is misconfigured", "<strong>sandbox/core</strong> is quarantined: " +
			"<code>tokenturn connection show sandbox/core</code>",
		"needs consent</strong>", "pat &lt;b&gt;must&lt;/b&gt; allow again",
		`<a href="http://localhost:8080/connect/CANARY">Link to send</a>`,
		"config error</strong>\nsandbox<br>wrong secret"} {
		if !strings.Contains(page.Body.String(), want) {
			t.Errorf("no %q on the page:\n%s", want, page.Body)
		}
	}
	if strings.Contains(page.Body.String(), "sandbox/fine") || strings.Index(page.Body.String(),
		"wrong secret") > strings.Index(page.Body.String(), "allow again") {
		t.Errorf("what is in order is shown, or the oldest first:\n%s", page.Body)
	}
	_, style, _ := strings.Cut(page.Body.String(), "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	if policy := page.Header().Get("Content-Security-Policy"); !strings.HasPrefix(policy,
		"default-src 'none'; style-src 'sha256-"+
			base64.StdEncoding.EncodeToString(sum[:])+"';") || strings.Contains(policy, "unsafe") ||
		page.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", page.Header())
	}
	for request, want := range map[[3]string]int{
		{"GET", "evil.example:8080", "/notices"}: http.StatusMisdirectedRequest, // a name that leads here (DNS rebinding)
		{"POST", "localhost:8080", "/notices"}:   http.StatusMethodNotAllowed,
		{"GET", "localhost:8080", "/elsewhere"}:  http.StatusNotFound,
	} {
		if got := get(request[0], request[1], request[2]); got.Code != want || strings.Contains(got.Body.String(), "CANARY") {
			t.Errorf("%v: %d, want %d", request, got.Code, want)
		}
	}
	for address, want := range map[string]int{"[::1]:50000": http.StatusOK, "[::ffff:127.0.0.1]:50000": http.StatusOK,
		"192.0.2.1:50000": http.StatusForbidden, "[2001:db8::1]:50000": http.StatusForbidden, "": http.StatusForbidden} {
		from = address
		if got := get("GET", "localhost:8080", "/notices"); got.Code != want || strings.Contains(got.Body.String(),
			"CANARY") != (want == http.StatusOK) {
			t.Errorf("from %q: %d, want %d", address, got.Code, want)
		}
	}
	from = "127.0.0.1:50000"
	for range 2 * mostNotices {
		_ = b.Notify(t.Context(), rotation.Notice{Kind: rotation.NoticeUnknown, Connection: bolt})
	}
	if len(b.notices) != mostNotices {
		t.Errorf("%d notices are kept", len(b.notices))
	}
	b.ledger = rows{err: errors.New("out of order")}
	if got := get("GET", "localhost:8080", "/notices"); got.Code != http.StatusServiceUnavailable {
		t.Errorf("without a ledger: %d", got.Code)
	}
}
