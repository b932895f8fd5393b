// Package lambdahttp adapts an http.Handler to an API Gateway HTTP API (payload
// format 2.0), so that the same handler serves a local listener and a Lambda
// function.
package lambdahttp

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
)

// Bounds in bytes. Lambda's own bound is 6 MB for an event and for an answer;
// these leave room for base64.
const (
	maxTarget = 16 << 10 // path and query
	maxBody   = 1 << 20  // of a request, decoded
	maxAnswer = 4 << 20
)

// Handler turns h into the function that lambda.Start takes. An event that is
// not a well-formed payload 2.0 request is answered with 400 without calling h.
// It returns no error: an HTTP API would show that as a bare 500.
// See https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
func Handler(h http.Handler) func(context.Context, events.APIGatewayV2HTTPRequest) (events.APIGatewayV2HTTPResponse,
	error) {
	return func(ctx context.Context, event events.APIGatewayV2HTTPRequest) (events.APIGatewayV2HTTPResponse, error) {
		request, err := newRequest(ctx, event)
		if err != nil {
			return plain(http.StatusBadRequest, "Bad request: "+err.Error()), nil
		}
		w := &answer{header: http.Header{}}
		h.ServeHTTP(w, request)
		return w.response(request.Method), nil
	}
}

// newRequest builds the request that net/http's server would have made of the event.
// Its errors repeat nothing of the request except its format.
func newRequest(ctx context.Context, event events.APIGatewayV2HTTPRequest) (*http.Request, error) {
	if event.Version != "2.0" {
		return nil, fmt.Errorf("this function accepts HTTP API requests of payload format 2.0, not %.20q; "+
			"set the integration's PayloadFormatVersion to 2.0", event.Version)
	}
	if len(event.RawPath)+len(event.RawQueryString) > maxTarget {
		return nil, errors.New("the address is too long")
	}
	// The path is used unchanged: API Gateway has decoded it. Joining it with the query
	// and parsing the result would let %3F in a path start a query.
	target := &url.URL{Path: withoutStage(event.RawPath, event.RequestContext.Stage), RawQuery: event.RawQueryString}
	if !strings.HasPrefix(target.Path, "/") {
		return nil, errors.New("the path does not begin with a slash")
	}
	body, err := decodeBody(event)
	if err != nil {
		return nil, err
	}
	// NewRequest checks the method.
	request, err := http.NewRequestWithContext(ctx, event.RequestContext.HTTP.Method, "/", bytes.NewReader(body))
	if err != nil || event.RequestContext.HTTP.Method == "" {
		return nil, errors.New("the method is malformed")
	}
	request.URL = target
	request.RequestURI = target.RequestURI()
	request.Proto, request.ProtoMajor, request.ProtoMinor = protocol(event.RequestContext.HTTP.Protocol)
	request.RemoteAddr = net.JoinHostPort(event.RequestContext.HTTP.SourceIP, "0")
	request.Header, request.Host = headers(event)
	return request, nil
}

// withoutStage removes the stage from the path. Only paths of the $default stage do
// not start with its name.
func withoutStage(path, stage string) string {
	if stage == "" || stage == "$default" {
		return path
	}
	rest, found := strings.CutPrefix(path, "/"+stage)
	switch {
	case found && rest == "":
		return "/"
	case found && strings.HasPrefix(rest, "/"):
		return rest
	}
	return path
}

func decodeBody(event events.APIGatewayV2HTTPRequest) ([]byte, error) {
	body := []byte(event.Body)
	if event.IsBase64Encoded {
		decoded, err := base64.StdEncoding.DecodeString(event.Body)
		if err != nil {
			return nil, errors.New("the body is marked as base64 but is not valid base64")
		}
		body = decoded
	}
	if len(body) > maxBody {
		return nil, errors.New("the body is too long")
	}
	return body, nil
}

// headers returns the header fields and the host. API Gateway has joined
// repeated fields with commas, and put cookies in a separate list.
func headers(event events.APIGatewayV2HTTPRequest) (http.Header, string) {
	header, host := http.Header{}, event.RequestContext.DomainName
	for name, value := range event.Headers {
		if strings.EqualFold(name, "Host") {
			host = value // net/http, too, keeps it outside the header
			continue
		}
		header.Set(name, value)
	}
	if len(event.Cookies) > 0 {
		header.Set("Cookie", strings.Join(event.Cookies, "; "))
	}
	return header, host
}

func protocol(text string) (string, int, int) {
	if major, minor, ok := http.ParseHTTPVersion(text); ok {
		return text, major, minor
	}
	return "HTTP/1.1", 1, 1
}

// answer is the http.ResponseWriter: like net/http's, it fixes status and header
// at the first write.
type answer struct {
	header http.Header
	sent   http.Header // as it was at WriteHeader
	status int
	body   bytes.Buffer
	long   bool // the handler wrote more than can be sent
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status != 0 || status < 200 { // an HTTP API cannot send informational answers
		return
	}
	a.status, a.sent = status, a.header.Clone()
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	switch {
	case a.status == http.StatusNoContent || a.status == http.StatusNotModified:
		return 0, http.ErrBodyNotAllowed
	case a.long || a.body.Len()+len(p) > maxAnswer:
		a.long = true
		return 0, fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	return a.body.Write(p)
}

// response returns the answer in payload format 2.0, which has one value per header
// field and a separate list of cookies.
func (a *answer) response(method string) events.APIGatewayV2HTTPResponse {
	a.WriteHeader(http.StatusOK)
	if a.long {
		return plain(http.StatusInternalServerError, "The answer is too long to be sent.")
	}
	out := events.APIGatewayV2HTTPResponse{StatusCode: a.status, Headers: map[string]string{},
		Cookies: a.sent["Set-Cookie"]}
	if a.sent.Get("Content-Type") == "" && a.body.Len() > 0 {
		out.Headers["Content-Type"] = http.DetectContentType(a.body.Bytes())
	}
	for name, values := range a.sent {
		if name != "Set-Cookie" {
			out.Headers[name] = strings.Join(values, ", ")
		}
	}
	switch {
	case method == http.MethodHead:
	case utf8.Valid(a.body.Bytes()) && a.sent.Get("Content-Encoding") == "":
		out.Body = a.body.String()
	default:
		out.Body, out.IsBase64Encoded = base64.StdEncoding.EncodeToString(a.body.Bytes()), true
	}
	return out
}

// plain is an answer in one sentence.
func plain(status int, text string) events.APIGatewayV2HTTPResponse {
	return events.APIGatewayV2HTTPResponse{StatusCode: status, Body: text + "\n", Headers: map[string]string{
		"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}}
}
