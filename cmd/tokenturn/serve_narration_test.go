package main

import (
	"bytes"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func TestNarration(t *testing.T) {
	var out bytes.Buffer
	c := &cli{store: "embedded", stderr: &out, log: sentences}
	log := c.logger(slog.LevelInfo).With("request_id", "ABC")
	acme := token.Connection{Environment: "demo", Name: "acme"}
	at := time.Date(2026, 11, 28, 16, 0, 0, 0, time.Local)
	n := &narrator{out: &out}
	report := func(r rotation.ConnectionReport) {
		r.Connection = acme
		n.report(rotation.Report{Connections: []rotation.ConnectionReport{r}})
	}

	log.Info("request served", "route", "GET /")
	log.Info("connection handled", "connection", acme.String())
	log.Info("request carried out", "op", "sweep")
	log.Debug("details")
	log.Info("consent ended", "connection", acme.String(), "result", "connected", "reference", "1")
	log.Warn("consent ended", "connection", acme.String(), "result", "failed", "error", errors.New("why"))
	log.Warn("notice", "kind", "needs_consent", "about", acme.String(), "summary", "A person must act.")
	log.Warn("notice", "kind", "needs_consent", "about", acme.String(), "summary", "Send them the link in this notice.")
	log.Warn("the store is slow", "error", errors.New("two\nlines"), "path", "")
	report(rotation.ConnectionReport{Outcome: rotation.Fresh})
	report(rotation.ConnectionReport{Outcome: rotation.NotFound})
	report(rotation.ConnectionReport{Outcome: rotation.Deferred, RetryAt: at})
	report(rotation.ConnectionReport{Outcome: rotation.Rotated, Epoch: 1, Generation: 3, ExpiresAt: at})
	report(rotation.ConnectionReport{Outcome: rotation.Published, Epoch: 1, Generation: 0, ExpiresAt: at})
	report(rotation.ConnectionReport{Outcome: rotation.Recovered, Epoch: 1, Generation: 4})
	report(rotation.ConnectionReport{Outcome: rotation.Busy, RetryAt: at})
	report(rotation.ConnectionReport{Outcome: rotation.Unknown, RetryAt: at})
	report(rotation.ConnectionReport{Outcome: rotation.Deferred, Detail: "HTTP 429", RetryAt: at})
	report(rotation.ConnectionReport{Outcome: rotation.Deferred, Detail: "HTTP 429", RetryAt: at}) // nothing new
	report(rotation.ConnectionReport{Outcome: rotation.ConfigError, Detail: "wrong secret"})
	report(rotation.ConnectionReport{Outcome: rotation.ConsentNeeded})
	report(rotation.ConnectionReport{Outcome: rotation.InQuarantine})
	report(rotation.ConnectionReport{Outcome: rotation.Failed, Detail: "no disk"})

	got := regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d  `).ReplaceAllString(out.String(), "")
	want := strings.TrimLeft(`
demo/acme: consent: connected
demo/acme: consent: failed: why
demo/acme: notice (needs consent): A person must act.
demo/acme: notice (needs consent): Send them the link in this notice. (The link is not shown here. `+
		"Create another one in the console, or with `tokenturn connection invite demo/acme`.)"+`
warn: the store is slow (error: two lines)
demo/acme: rotated: generation 1.3 is published; its access token is valid until 16:00:00
demo/acme: published: generation 1.0; its access token is valid until 16:00:00
demo/acme: recovered: generation 1.4 is published
demo/acme: the run that got the new token pair publishes it; next try at 16:00:00
demo/acme: the answer is not known, so nothing is presented for now; next try at 16:00:00
demo/acme: waits: HTTP 429; next try at 16:00:00
demo/acme: configuration error: wrong secret
demo/acme: needs a person's consent
demo/acme: quarantined: a person must decide about an answer of the server
demo/acme: failed: no disk
`, "\n")
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestLogFormats(t *testing.T) {
	for want, c := range map[string]cli{"level=INFO msg=\"request served\" route=\"GET /\"": {},
		`"msg":"request served","route":"GET /"`: {json: true}, `,"route":"GET /"`: {log: jsonLines},
		` route="GET /"`: {json: true, log: logfmt}} {
		var out bytes.Buffer
		c.stderr = &out
		c.logger(slog.LevelInfo).Info("request served", "route", "GET /")
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s does not contain %s", out.String(), want)
		}
	}
}
