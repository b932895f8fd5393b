package infra_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/awsstack"
	"github.com/tokenturn/tokenturn/pkg/config"
	"github.com/tokenturn/tokenturn/pkg/consent"
	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/invitations/invitationstest"
	"github.com/tokenturn/tokenturn/pkg/lambdalog"
	"github.com/tokenturn/tokenturn/pkg/metrics"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/trigger"
)

// installation is both functions, as their mains wire them but with stores and a
// server in memory, and the metrics that CloudWatch derives from their logs.
type installation struct {
	*rotationtest.Harness
	t       *testing.T
	ctx     context.Context
	inForce atomic.Pointer[rotationtest.Gate]
	twist   func(body string) string // of the token endpoint; nil: as it is
	denied  string                   // see deniedLine
	log     bytes.Buffer
	cloud   cloudwatch
	rotate  trigger.Handler
	server  http.Handler
	meter   *metrics.Meter
	states  *invitationstest.Store
}

func install(t *testing.T, personality rotationtest.Personality) *installation {
	i := &installation{t: t, ctx: t.Context(), cloud: cloudwatch{}, states: &invitationstest.Store{}}
	i.Harness = rotationtest.NewHarness(func(ctx context.Context, at rotationtest.Passage) rotationtest.Fault {
		if g := i.inForce.Load(); g != nil && *g != nil {
			return (*g)(ctx, at)
		}
		return rotationtest.Fault{}
	}, personality)
	i.meter = metrics.New(&i.log, "example", time.Now)
	log := lambdalog.New(&i.log, 0)
	notifier, issuer := i.meter.Notifier(i.Notifier), i.meter.Issuer(twisted{i.Issuer, i})
	settings := rotation.DefaultSettings("example")
	rotator, err := rotation.NewRotator(rotation.Config{Ledger: i.Ledger, SecretStore: i.SecretStore, Sealer: i.Sealer,
		Applications: i.Applications,
		Issuer:       issuer, FollowUps: i.FollowUps, Notifier: notifier, Log: log, Settings: settings})
	i.check(err)
	consents, err := rotation.NewConsents(rotation.ConsentsConfig{Ledger: i.Ledger, Sealer: i.Sealer,
		Applications: i.Applications,
		Issuer:       issuer, FollowUps: i.FollowUps, Notifier: notifier, Log: log, Settings: settings})
	i.check(err)
	i.rotate = trigger.Handler{Engine: rotator, Log: log, Meter: i.meter}
	i.server, err = consent.New(consent.Config{Store: i.states, Consents: consents, Applications: i.Applications,
		Observer:     i.meter,
		AuthorizeURL: procore.AuthorizeURL, PublicURL: publicURL, Logger: log, Now: time.Now})
	i.check(err)
	return i
}

const publicURL = "https://example.com"

type twisted struct {
	*rotationtest.Issuer
	i *installation
}

func (w twisted) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	answer := w.Issuer.Redeem(ctx, app, grant)
	if w.i.twist != nil {
		answer.Body = token.NewSecret(w.i.twist(answer.Body.Reveal()))
	}
	return answer
}

func (i *installation) check(err error) {
	i.t.Helper()
	if err != nil {
		i.t.Fatal(err)
	}
}

func (i *installation) gate(g rotationtest.Gate) { i.inForce.Store(&g) }

// run is one event of the rotate function, which Lambda ends after 15 minutes.
func (i *installation) run(request rotation.Request) {
	payload, err := json.Marshal(request)
	i.check(err)
	ctx, cancel := context.WithTimeout(i.ctx, 15*time.Minute)
	defer cancel()
	_, _ = i.rotate.Invoke(ctx, payload) // an error is in the log, and in Lambda's own metric
}

func (i *installation) sweep() { i.run(rotation.Request{Op: "sweep"}) }

// hours lets time pass, with a sweep at the end of each hour and the messages of
// the queue delivered when they are due, now and then twice.
func (i *installation) hours(n int) {
	for hour := range n {
		next := time.Now().Add(time.Hour)
		for at := i.FollowUps.Next(); !at.IsZero() && at.Before(next); at = i.FollowUps.Next() {
			time.Sleep(time.Until(at))
			for _, request := range i.FollowUps.Take() {
				i.run(request)
				if hour%7 == 0 {
					i.run(request)
				}
			}
		}
		time.Sleep(time.Until(next))
		i.sweep()
	}
}

// goneOff are the alarms that went off between from and now.
func (i *installation) goneOff(alarms []alarm, from time.Time) (off []string) {
	i.check(i.cloud.take(i.log.String()))
	for _, a := range alarms {
		if points := i.cloud[a.metric]; (points != nil || a.missing == "breaching") && a.goesOff(points, from,
			time.Now().Add(time.Duration(a.period)*time.Minute)) {
			off = append(off, a.id)
		}
	}
	slices.Sort(off)
	return off
}

// shown is what readers see.
func (i *installation) shown() token.Document {
	version, err := i.SecretStore.Current(i.ctx, acme)
	i.check(err)
	doc, err := token.ParseDocument(version.Value)
	i.check(err)
	return doc
}

// connect lets a person connect acme by a link, and returns what sends the
// redirect again.
func (i *installation) connect() (again func()) {
	rec, err := rotation.Register(i.ctx, i.Ledger, i.SecretStore, "example", acme)
	i.check(err)
	link, _, err := invitations.New(i.ctx, i.states, publicURL, invitations.Invitation{Connection: acme, Epoch: rec.Epoch,
		CreatedAt: time.Now()})
	i.check(err)
	begin := httptest.NewRequest("POST", link.Reveal(), nil)
	begin.Header.Set("Sec-Fetch-Site", "same-origin")
	begun := i.visit(begin)
	there, err := url.Parse(begun.Header.Get("Location"))
	i.check(err)
	asked := there.Query()
	code := i.Issuer.Authorize(rotation.Identity{ClientID: rotationtest.Sandbox.ClientID, ResourceOwner: "7"},
		asked.Get("redirect_uri"), asked.Get("code_challenge"))
	back := asked.Get("redirect_uri") + "?" + url.Values{"code": {code.Reveal()}, "state": {asked.Get("state")}}.Encode()
	again = func() {
		request := httptest.NewRequest("GET", back, nil)
		for _, cookie := range begun.Cookies() {
			request.AddCookie(cookie)
		}
		if answer := i.visit(request); !strings.HasSuffix(answer.Header.Get("Location"), "/connected") {
			i.t.Fatalf("the callback answered %d, %s", answer.StatusCode, answer.Header.Get("Location"))
		}
	}
	again()
	for _, request := range i.FollowUps.Take() {
		i.run(request)
	}
	return again
}

// visit is one event of the callback function.
func (i *installation) visit(request *http.Request) *http.Response {
	defer i.meter.Flush()
	answer := httptest.NewRecorder()
	i.server.ServeHTTP(answer, request)
	return answer.Result()
}

// deniedLine is what the functions write when KMS denies them a data key.
func deniedLine(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w,
			`{"__type":"AccessDeniedException","message":"not authorized to perform kms:GenerateDataKey"}`)
	}))
	defer server.Close()
	for name, value := range map[string]string{"AWS_ENDPOINT_URL": server.URL, "AWS_REGION": "us-east-1",
		"AWS_ACCESS_KEY_ID":     "example",
		"AWS_SECRET_ACCESS_KEY": "example", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
		"AWS_PROFILE": ""} {
		t.Setenv(name, value)
	}
	settings, err := config.Read(config.Rotate, []string{"TOKENTURN_TABLE=tokens", "TOKENTURN_SEAL_KEY=alias/seal",
		"TOKENTURN_STACK=example"})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	// The time of the simulations, which begin at midnight of 2000-01-01 UTC.
	meter := metrics.New(&log, settings.Stack, func() time.Time { return time.Date(2000, 1, 1, 1, 30, 0, 0, time.UTC) })
	cfg, err := awsstack.FunctionConfig(os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	stack, err := awsstack.Open(cfg, settings, lambdalog.New(&log, settings.LogLevel), meter, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := stack.Sealer.DataKey(t.Context()); err == nil {
		t.Fatal("the key was not denied")
	}
	meter.Flush()
	return log.String()
}
