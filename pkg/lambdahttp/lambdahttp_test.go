package lambdahttp_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tokenturn/tokenturn/pkg/lambdahttp"
)

// received is what the handler under the adapter saw.
type received struct {
	request *http.Request
	body    string
}

// record answers with 200 and keeps the request.
func record(t *testing.T, event events.APIGatewayV2HTTPRequest) (received, events.APIGatewayV2HTTPResponse) {
	t.Helper()
	var got received
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("reading the body: %v", err)
		}
		got = received{r, string(body)}
	})
	return got, call(t, handler, event)
}

func call(t *testing.T, h http.Handler, event events.APIGatewayV2HTTPRequest) events.APIGatewayV2HTTPResponse {
	t.Helper()
	out, err := lambdahttp.Handler(h)(t.Context(), event)
	if err != nil {
		t.Fatalf("the function failed: %v", err)
	}
	return out
}

func get(path, query string) events.APIGatewayV2HTTPRequest {
	event := events.APIGatewayV2HTTPRequest{Version: "2.0", RawPath: path, RawQueryString: query,
		Headers: map[string]string{"host": "tokens.example.com"}}
	event.RequestContext.Stage = "$default"
	event.RequestContext.DomainName = "abc.execute-api.us-east-1.amazonaws.com"
	event.RequestContext.HTTP.Method = http.MethodGet
	event.RequestContext.HTTP.Protocol = "HTTP/1.1"
	event.RequestContext.HTTP.SourceIP = "203.0.113.7"
	return event
}

func TestRequestArrivesWhole(t *testing.T) {
	event := get("/callback/sandbox", "code=a%26b&state=1&state=2")
	event.Headers["accept"] = "text/html,*/*"
	event.Headers["sec-fetch-site"] = "same-origin"
	event.Headers["cookie"] = "stale=1"
	event.Cookies = []string{"a=1", "b=2"}

	got, _ := record(t, event)

	r := got.request
	if r.Method != "GET" || r.URL.Path != "/callback/sandbox" || r.URL.RawQuery != "code=a%26b&state=1&state=2" {
		t.Errorf("got %s %s ? %s", r.Method, r.URL.Path, r.URL.RawQuery)
	}
	if r.RequestURI != "/callback/sandbox?code=a%26b&state=1&state=2" {
		t.Errorf("RequestURI %q", r.RequestURI)
	}
	if r.Host != "tokens.example.com" || r.Header.Get("Host") != "" {
		t.Errorf("host %q, header %q", r.Host, r.Header.Get("Host"))
	}
	if r.RemoteAddr != "203.0.113.7:0" {
		t.Errorf("remote address %q", r.RemoteAddr)
	}
	if r.Header.Get("Sec-Fetch-Site") != "same-origin" || r.Header.Get("Accept") != "text/html,*/*" {
		t.Errorf("header %v", r.Header)
	}
	if all := r.Cookies(); len(all) != 2 || all[0].Value != "1" || all[1].Name != "b" {
		t.Errorf("cookies %v", all)
	}
	if r.Context() != t.Context() {
		t.Error("the request does not carry the invocation's context")
	}
}

func TestHostFallsBackToTheDomainName(t *testing.T) {
	event := get("/", "")
	event.Headers = nil
	got, _ := record(t, event)
	if got.request.Host != "abc.execute-api.us-east-1.amazonaws.com" {
		t.Errorf("host %q", got.request.Host)
	}
}

func TestPaths(t *testing.T) {
	for _, c := range []struct{ name, stage, raw, want string }{
		{"default stage", "$default", "/connect/x", "/connect/x"},
		{"no stage", "", "/connect/x", "/connect/x"},
		{"named stage", "prod", "/prod/connect/x", "/connect/x"},
		{"named stage alone", "prod", "/prod", "/"},
		{"named stage behind a custom domain", "prod", "/connect/x", "/connect/x"},
		{"a path that only begins like the stage", "prod", "/production", "/production"},
		{"a question mark that was escaped", "$default", "/callback/a?code=1", "/callback/a?code=1"},
		{"a percent sign that was escaped", "$default", "/callback/%41", "/callback/%41"},
		{"two slashes", "$default", "//evil.example/x", "//evil.example/x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			event := get(c.raw, "q=1")
			event.RequestContext.Stage = c.stage
			got, _ := record(t, event)
			if got.request.URL.Path != c.want || got.request.URL.RawQuery != "q=1" || got.request.URL.Host != "" {
				t.Errorf("got %#v", got.request.URL)
			}
		})
	}
}

func TestBodies(t *testing.T) {
	event := get("/", "")
	event.RequestContext.HTTP.Method = http.MethodPost
	event.Body = "a=1"
	if got, _ := record(t, event); got.body != "a=1" || got.request.ContentLength != 3 {
		t.Errorf("plain body %q, length %d", got.body, got.request.ContentLength)
	}
	event.Body, event.IsBase64Encoded = base64.StdEncoding.EncodeToString([]byte{0, 255, 'x'}), true
	if got, _ := record(t, event); got.body != "\x00\xffx" || got.request.ContentLength != 3 {
		t.Errorf("encoded body %q, length %d", got.body, got.request.ContentLength)
	}
}

func TestMalformedEventsAreAnsweredWithoutTheHandler(t *testing.T) {
	const canary = "canary-7QZ"
	for _, c := range []struct {
		name, want string
		change     func(*events.APIGatewayV2HTTPRequest)
	}{
		{"payload 1.0", "PayloadFormatVersion to 2.0", func(e *events.APIGatewayV2HTTPRequest) { e.Version = "1.0" }},
		{"no version", "payload format 2.0", func(e *events.APIGatewayV2HTTPRequest) { e.Version = "" }},
		{"no path", "slash", func(e *events.APIGatewayV2HTTPRequest) { e.RawPath = "" }},
		{"relative path", "slash", func(e *events.APIGatewayV2HTTPRequest) { e.RawPath = "connect" }},
		{"overlong query", "too long", func(e *events.APIGatewayV2HTTPRequest) {
			e.RawQueryString = strings.Repeat("x",
				100_000)
		}},
		{"overlong path", "too long", func(e *events.APIGatewayV2HTTPRequest) {
			e.RawPath = "/" +
				strings.Repeat("x", 100_000)
		}},
		{"no method", "method", func(e *events.APIGatewayV2HTTPRequest) { e.RequestContext.HTTP.Method = "" }},
		{"impossible method", "method", func(e *events.APIGatewayV2HTTPRequest) { e.RequestContext.HTTP.Method = "GE T" }},
		{"broken base64", "base64", func(e *events.APIGatewayV2HTTPRequest) { e.Body, e.IsBase64Encoded = "a*b", true }},
		{"overlong body", "too long", func(e *events.APIGatewayV2HTTPRequest) { e.Body = strings.Repeat("x", 2<<20) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			event := get("/callback/sandbox", "code="+canary)
			c.change(&event)
			got, out := record(t, event)
			if got.request != nil {
				t.Error("the handler was called")
			}
			if out.StatusCode != 400 || !strings.Contains(out.Body, c.want) || out.Headers["Cache-Control"] != "no-store" {
				t.Errorf("got %+v", out)
			}
			if strings.Contains(out.Body, canary) {
				t.Error("the answer repeats the query")
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name   string
		method string
		serve  http.HandlerFunc
		want   events.APIGatewayV2HTTPResponse
	}{
		{"nothing written", "GET", func(http.ResponseWriter, *http.Request) {},
			events.APIGatewayV2HTTPResponse{StatusCode: 200}},
		{"text without a type", "GET", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "<!DOCTYPE html>")
			w.WriteHeader(500)
			w.Header().Set("Late", "1")
		}, events.APIGatewayV2HTTPResponse{StatusCode: 200, Body: "<!DOCTYPE html>",
			Headers: map[string]string{"Content-Type": "text/html; charset=utf-8"}}},
		{"cookies and repeated fields", "GET", func(w http.ResponseWriter, _ *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "a", Value: "1"})
			http.SetCookie(w, &http.Cookie{Name: "b", Value: "2"})
			w.Header()["Vary"] = []string{"Cookie", "Accept"}
			w.Header().Set("Location", "https://login.example.com/?a=1,2")
			w.WriteHeader(303)
		}, events.APIGatewayV2HTTPResponse{StatusCode: 303, Cookies: []string{"a=1", "b=2"},
			Headers: map[string]string{"Vary": "Cookie, Accept", "Location": "https://login.example.com/?a=1,2"}}},
		{"bytes that are no text", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "image/png")
			_, _ = w.Write([]byte{0xff, 0})
		}, events.APIGatewayV2HTTPResponse{StatusCode: 200, Body: "/wA=", IsBase64Encoded: true,
			Headers: map[string]string{"Content-Type": "image/png"}}},
		{"compressed text", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write([]byte("x"))
		}, events.APIGatewayV2HTTPResponse{StatusCode: 200, Body: "eA==", IsBase64Encoded: true,
			Headers: map[string]string{"Content-Type": "text/plain", "Content-Encoding": "gzip"}}},
		{"HEAD", "HEAD", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = w.Write([]byte("x"))
		}, events.APIGatewayV2HTTPResponse{StatusCode: 200, Headers: map[string]string{"Content-Type": "text/plain"}}},
		{"no content", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(103)
			w.WriteHeader(204)
			if _, err := w.Write([]byte("x")); err == nil {
				t.Error("a body was accepted for 204")
			}
		}, events.APIGatewayV2HTTPResponse{StatusCode: 204}},
		{"more than can be sent", "GET", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, 3<<20))
			if _, err := w.Write(make([]byte, 3<<20)); err == nil {
				t.Error("6 MB were accepted")
			}
		}, events.APIGatewayV2HTTPResponse{StatusCode: 500, Body: "The answer is too long to be sent.\n",
			Headers: map[string]string{
				"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			event := get("/", "")
			event.RequestContext.HTTP.Method = c.method
			got := call(t, c.serve, event)
			if c.want.Headers == nil {
				c.want.Headers = map[string]string{}
			}
			if wantJSON, gotJSON := asJSON(t, c.want), asJSON(t, got); wantJSON != gotJSON {
				t.Errorf("got  %s\nwant %s", gotJSON, wantJSON)
			}
		})
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// FuzzHandler feeds whole events, as Lambda would.
func FuzzHandler(f *testing.F) {
	for _, event := range []events.APIGatewayV2HTTPRequest{get("/connect/x", ""), get("/prod/callback/sandbox",
		"code=1&state=2"), {}} {
		text, err := json.Marshal(event)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"version":"1.0","path":"/x"}`))
	f.Add([]byte(`{"version":"2.0","rawPath":"/","isBase64Encoded":true,"body":"==","requestContext":{"http":{"method":"POST"}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var event events.APIGatewayV2HTTPRequest
		if json.Unmarshal(text, &event) != nil {
			return
		}
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasPrefix(r.URL.Path, "/") || r.URL.Host != "" || r.Method == "" {
				t.Errorf("%s %#v", r.Method, r.URL)
			}
			_, _ = r.Cookies(), r.URL.Query()
			_, _ = io.Copy(w, r.Body)
		})
		out, err := lambdahttp.Handler(handler)(t.Context(), event)
		if err != nil || out.StatusCode < 200 || out.StatusCode > 599 {
			t.Errorf("status %d, error %v", out.StatusCode, err)
		}
	})
}
