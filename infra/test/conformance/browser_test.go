//go:build conformance

package conformance

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"
)

// browser is one person's browser before API Gateway's HTTP API and the
// callback function behind it.
type browser struct {
	in      *installation
	cookies map[string]string
}

func (in *installation) browser() *browser { return &browser{in, map[string]string{}} }

// page is what the browser was answered.
type page struct {
	status   int
	location string
	body     string
}

// open requests an address of the callback function, given whole or as a path.
func (b *browser) open(method, address string) page {
	b.in.t.Helper()
	u, err := url.Parse(address)
	b.in.must(err)
	answer, err := b.in.callback.Invoke(b.in.t.Context(), b.event(method, u))
	if err != nil {
		b.in.t.Fatalf("callback with %s %s: %v", method, u.Path, err)
	}
	var response events.APIGatewayV2HTTPResponse
	if err := json.Unmarshal(answer, &response); err != nil {
		b.in.t.Fatalf("callback answered %.200s: %v", answer, err)
	}
	for _, line := range response.Cookies {
		cookie, err := http.ParseSetCookie(line)
		b.in.must(err)
		b.cookies[cookie.Name] = cookie.Value
		b.in.canary.add("cookie", cookie.Value)
	}
	_, _ = b.in.pages.Write([]byte(response.Body + "\n"))
	header := http.Header{}
	for name, value := range response.Headers {
		header.Set(name, value)
	}
	return page{response.StatusCode, header.Get("Location"), response.Body}
}

// event is the request in API Gateway's payload format 2.0, its header names
// in lower case and its cookies in a list of their own.
func (b *browser) event(method string, u *url.URL) []byte {
	headers := map[string]string{"host": strings.TrimPrefix(publicURL, "https://"), "user-agent": "Mozilla/5.0",
		"accept": "text/html", "x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.1"}
	if method == http.MethodPost { // a form on a page with Referrer-Policy: no-referrer
		headers["content-type"], headers["origin"], headers["sec-fetch-site"] = "application/x-www-form-urlencoded", "null",
			"same-origin"
	}
	var cookies []string
	for name, value := range b.cookies {
		cookies = append(cookies, name+"="+value)
	}
	var query map[string]string
	for name, values := range u.Query() {
		if query == nil {
			query = map[string]string{}
		}
		query[name] = strings.Join(values, ",")
	}
	event, err := json.Marshal(events.APIGatewayV2HTTPRequest{Version: "2.0", RouteKey: method + " " + u.Path,
		RawPath:        u.EscapedPath(),
		RawQueryString: u.RawQuery, QueryStringParameters: query, Headers: headers, Cookies: cookies,
		RequestContext: events.APIGatewayV2HTTPRequestContext{Stage: "$default", RequestID: "JKJaXmPLvHcESHA=",
			APIID:      "api-id",
			DomainName: headers["host"], RouteKey: method + " " + u.Path, TimeEpoch: time.Now().UnixMilli(),
			HTTP: events.APIGatewayV2HTTPRequestContextHTTPDescription{Method: method, Path: u.Path, Protocol: "HTTP/1.1",
				SourceIP: "192.0.2.1", UserAgent: headers["user-agent"]}}})
	b.in.must(err)
	return event
}

// begin opens the invitation, presses its button and returns the address of
// the authorization page.
func (b *browser) begin(invitation string) string {
	b.in.t.Helper()
	b.in.canary.add("invitation", invitation[strings.LastIndex(invitation, "/")+1:])
	if p := b.open(http.MethodGet, invitation); p.status != http.StatusOK {
		b.in.t.Fatalf("the invitation page answers %d: %s", p.status, p.body)
	}
	p := b.open(http.MethodPost, invitation)
	if p.status != http.StatusSeeOther {
		b.in.t.Fatalf("pressing the button answers %d: %s", p.status, p.body)
	}
	u, err := url.Parse(p.location)
	b.in.must(err)
	b.in.canary.add("state", u.Query().Get("state"))
	return p.location
}

// atProvider consents, or denies, on the provider's pages and returns the
// address that the provider sends the browser to.
func (b *browser) atProvider(authorize string, deny ...string) string {
	b.in.t.Helper()
	at, err := url.Parse(authorize)
	b.in.must(err)
	cmd := exec.CommandContext(b.in.t.Context(), "../peers/doorkeeper/drive",
		append([]string{"consent", "http://" + at.Host, authorize}, deny...)...)
	out, err := cmd.Output()
	if err != nil {
		b.in.t.Fatalf("drive consent: %v: %s", err, err.(*exec.ExitError).Stderr)
	}
	address := strings.TrimSpace(string(out))
	if u, err := url.Parse(address); err == nil {
		b.in.canary.add("code", u.Query().Get("code"))
	}
	return address
}

// connect takes a new connection from an invitation to its first published pair.
func (in *installation) connect(connection string) {
	in.t.Helper()
	b := in.browser()
	result := b.open(http.MethodGet, b.atProvider(b.begin(in.invite(connection))))
	if u, err := url.Parse(result.location); err != nil || result.status != http.StatusSeeOther || u.Path != "/connected" {
		in.t.Fatalf("the callback answers %d with location %q, want a redirect to /connected", result.status, result.location)
	}
	if p := b.open(http.MethodGet, result.location); p.status != http.StatusOK {
		in.t.Fatalf("the result page answers %d", p.status)
	}
	if in.deliver() == 0 {
		in.t.Errorf("the callback queued nothing for %s", connection)
	}
}
