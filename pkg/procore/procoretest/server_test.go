package procoretest_test

import (
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func TestOracle(t *testing.T) {
	c := newClient(t)
	_, first := c.pair()
	_, second := c.pair()
	c.refresh(first)
	c.refresh("unknown")
	c.Script(procoretest.LostBefore())
	if _, err := http.Post(c.URL+"/oauth/token", "application/x-www-form-urlencoded",
		strings.NewReader("grant_type=refresh_token&refresh_token="+second)); err == nil {
		t.Error("the answer was not lost")
	}
	var outcomes []string
	for _, p := range c.Presentations() {
		outcomes = append(outcomes, p.Grant+" "+p.Outcome)
	}
	if got := strings.Join(outcomes, ", "); got != "refresh_token granted, refresh_token invalid_grant, "+
		"refresh_token unreceived" {
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

func TestBlocked(t *testing.T) {
	c := newClient(t)
	access, refresh := c.pair()
	release := make(chan struct{})
	c.Script(procoretest.Blocked(release))
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

// A scripted answer has the effect that its documentation gives.
func TestSpoiledAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		script   procoretest.Answer
		status   int
		encoding string
		kind     string
		takes    bool // effect
	}{
		"gzip":             {procoretest.Gzipped(), 200, "gzip", "application/json; charset=utf-8", true},
		"UTF-16":           {procoretest.InUTF16(), 200, "", "application/json; charset=utf-16", true},
		"unreadable":       {procoretest.Unreadable(), 200, "br", "application/json; charset=utf-8", true},
		"a firewall":       {procoretest.HTML(403), 403, "", "text/html; charset=utf-8", false},
		"415":              {procoretest.Text(415), 415, "", "text/plain; charset=utf-8", false},
		"302":              {procoretest.Found("/elsewhere"), 302, "", "text/html", false},
		"a false refusal":  {procoretest.Refused(), 400, "", "application/json; charset=utf-8", false},
		"nothing is wrong": {procoretest.Answer{}, 200, "", "application/json; charset=utf-8", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newClient(t)
			_, refresh := s.pair()
			s.Script(c.script)
			form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh},
				"client_id": {s.app.ClientID}, "client_secret": {s.app.ClientSecret.Reveal()}}
			body := strings.NewReader(form.Encode())
			req, err := http.NewRequestWithContext(t.Context(), "POST", s.URL+"/oauth/token", body)
			if err == nil {
				req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				req.Header.Set("Accept-Encoding", "identity")
			}
			got := s.do(req, err)
			if got.status != c.status || got.header.Get("Content-Encoding") != c.encoding ||
				got.header.Get("Content-Type") != c.kind {
				t.Errorf("%d, headers %v", got.status, got.header)
			}
			if s.Accepts(token.NewSecret(refresh)) == c.takes || len(s.Presentations()) != 1 {
				t.Errorf("still accepted: %v, presented %d times", !c.takes, len(s.Presentations()))
			}
			if name == "unreadable" && !strings.Contains(procoretest.Unveil(got.text), s.Live()[0].RefreshToken.Reveal()) {
				t.Error("the answer is not in the bytes")
			}
			if name == "a false refusal" {
				s.refused(s.refresh("unknown"), 400, got.get("error"))
			}
		})
	}
}
