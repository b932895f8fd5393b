package consent_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tokenturn/tokenturn/pkg/consent"
	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/lambdahttp"
	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// gatewayEvent is the request as API Gateway passes it to the function.
func gatewayEvent(method, target string, cookies []*http.Cookie) events.APIGatewayV2HTTPRequest {
	path, query, _ := strings.Cut(strings.TrimPrefix(target, publicURL), "?")
	event := events.APIGatewayV2HTTPRequest{Version: "2.0", RawPath: path, RawQueryString: query,
		Headers: map[string]string{"host": "tokens.example.com"}}
	event.RequestContext.Stage, event.RequestContext.HTTP.Method = "$default", method
	for _, c := range cookies {
		event.Cookies = append(event.Cookies, c.Name+"="+c.Value)
	}
	return event
}

// A malformed event never reaches the handler, and the right request still works
// afterwards.
func TestBadEventsChangeNothing(t *testing.T) {
	s := newServer(t)
	serve := lambdahttp.Handler(s.handler)
	for _, c := range []struct {
		name   string
		change func(e *events.APIGatewayV2HTTPRequest)
		status int
	}{
		{"payload 1.0 on a 2.0 route", func(e *events.APIGatewayV2HTTPRequest) { e.Version = "1.0" }, 400},
		{"no version", func(e *events.APIGatewayV2HTTPRequest) { e.Version = "" }, 400},
		{"broken base64 body", func(e *events.APIGatewayV2HTTPRequest) { e.Body, e.IsBase64Encoded = "%%%", true }, 400},
		{"2 MB body", func(e *events.APIGatewayV2HTTPRequest) { e.Body = strings.Repeat("x", 2<<20) }, 400},
		{"100 kB query", func(e *events.APIGatewayV2HTTPRequest) { e.RawQueryString += "&x=" + strings.Repeat("x", 100_000) },
			400},
		{"no method", func(e *events.APIGatewayV2HTTPRequest) { e.RequestContext.HTTP.Method = "" }, 400},
		{"malformed method", func(e *events.APIGatewayV2HTTPRequest) { e.RequestContext.HTTP.Method = "GE T" }, 400},
		{"path without a slash", func(e *events.APIGatewayV2HTTPRequest) { e.RawPath = "callback/sandbox" }, 400},
		{"query within the path", func(e *events.APIGatewayV2HTTPRequest) {
			e.RawPath, e.RawQueryString = e.RawPath+"?"+e.RawQueryString, ""
		}, 400},
		{"HEAD", func(e *events.APIGatewayV2HTTPRequest) { e.RequestContext.HTTP.Method = "HEAD" }, 405},
		{"PUT", func(e *events.APIGatewayV2HTTPRequest) { e.RequestContext.HTTP.Method = "PUT" }, 405},
		{"attacker's Host", func(e *events.APIGatewayV2HTTPRequest) { e.Headers["host"] = "evil.example.com" }, 400},
		{"Host in two spellings, joined", func(e *events.APIGatewayV2HTTPRequest) {
			e.Headers["host"] = "tokens.example.com,evil.example.com"
		}, 400},
		{"cookie in a header and in the list", func(e *events.APIGatewayV2HTTPRequest) {
			e.Cookies = append(e.Cookies, e.Cookies[0])
		}, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, hash := s.invite(rotation.Identity{})
			b := s.browser()
			target := b.allow(path)
			event := gatewayEvent("GET", target, b.cookies)
			invited, redeems := s.invitation(hash), s.issuer.count()
			c.change(&event)
			s.store.made()
			answer, err := serve(t.Context(), event)
			if err != nil || answer.StatusCode != c.status || answer.Headers["Location"] != "" || len(answer.Cookies) != 0 {
				t.Errorf("answer %d %v, %v", answer.StatusCode, answer.Headers, err)
			}
			if calls := s.store.made(); calls != "" || s.issuer.count() != redeems || s.invitation(hash) != invited {
				t.Errorf("store calls %q", calls)
			}
			answer, err = serve(t.Context(), gatewayEvent("GET", target, b.cookies))
			if err != nil || answer.StatusCode != 303 || answer.Headers["Location"] != publicURL+"/connected" {
				t.Errorf("the right request answers %d %v, %v", answer.StatusCode, answer.Headers, err)
			}
		})
	}
}

// 200 malformed callbacks a second for 30 seconds. Any call of a store, of the
// app credentials or of the ledger would be a nil dereference.
func TestFloodTouchesNoStore(t *testing.T) {
	var malformed []attack
	for _, a := range attacks {
		if a.calls == "" {
			malformed = append(malformed, a)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		path, _ := s.invite(rotation.Identity{})
		b := s.browser()
		good, err := url.Parse(b.allow(path))
		if err != nil {
			t.Fatal(err)
		}
		kept := *b.cookies[0]
		s.handler, err = consent.New(consent.Config{Store: struct{ invitations.Store }{}, Consents: &rotation.Consents{},
			Applications: struct{ rotation.Applications }{}, AuthorizeURL: authorizeURL, PublicURL: publicURL,
			Logger: s.logger(), Now: s.clock.Now})
		if err != nil {
			t.Fatal(err)
		}
		begun, sent, kinds := time.Now(), 0, map[int]int{}
		for range 200 * 30 {
			c := kept
			b.cookies = []*http.Cookie{&c}
			a := &attempt{s: s, b: b, method: "GET", path: "/callback/sandbox", query: good.Query()}
			malformed[sent%len(malformed)].change(a)
			kinds[a.send().StatusCode]++
			sent++
			time.Sleep(time.Second / 200)
		}
		if took := time.Since(begun); sent != 6000 || took != 30*time.Second || kinds[400]+kinds[404]+kinds[405] != sent {
			t.Errorf("%d requests in %v: %v", sent, took, kinds)
		}
		t.Logf("%d requests of %d kinds, by status: %v", sent, len(malformed), kinds)
	})
}
