package tokensource

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/oauth2"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// Client returns a client that sends the connection's token with its requests; see
// Transport. As with package oauth2, a client in ctx under oauth2.HTTPClient supplies
// the base transport; its other fields are copied too.
func (s *Source) Client(ctx context.Context) *http.Client {
	client := http.Client{}
	if given, ok := ctx.Value(oauth2.HTTPClient).(*http.Client); ok && given != nil {
		client = *given
	}
	client.Transport = s.Transport(client.Transport)
	return &client
}

// Transport returns a RoundTripper that adds Authorization to each request to
// the connection's API and, if the connection has a company and the request
// names none, Procore-Company-Id. Requests to other hosts, such as the file
// store that a download is redirected to, pass unchanged: they must not get the token.
//
// If the API answers 401, the transport reads the secret again for a few seconds at
// most. With a newer token it repeats the request once, if the request has no body or
// the body can be sent again (http.Request.GetBody; http.NewRequest sets it for buffers
// and strings). Otherwise it returns the 401 unchanged. A nil base is
// http.DefaultTransport.
func (s *Source) Transport(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return &transport{s, base}
}

type transport struct {
	source *Source
	base   http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	document, err := t.source.Document(request.Context())
	if err != nil {
		discard(request.Body) // as a RoundTripper must
		return nil, err
	}
	if !belongs(request, document) {
		return t.base.RoundTrip(request)
	}
	response, err := t.base.RoundTrip(authorize(request, document))
	if err != nil || response.StatusCode != http.StatusUnauthorized {
		return response, err
	}
	again, repeatable := repeat(request)
	if !repeatable {
		t.source.reject(document)
		return response, nil
	}
	document, found := t.source.awaitNewer(request.Context(), document)
	if !found || !belongs(request, document) { // the connection's API may have moved
		discard(again.Body)
		return response, nil
	}
	io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10)) // so that the network connection can be reused
	response.Body.Close()
	return t.base.RoundTrip(authorize(again, document))
}

// belongs reports whether the request goes to the connection's API. If the document
// does not name the API, every request belongs that does not follow a redirect.
func belongs(request *http.Request, d token.Document) bool {
	if d.APIURL == "" {
		return request.Response == nil
	}
	api, err := url.Parse(d.APIURL)
	return err == nil && strings.EqualFold(api.Scheme, request.URL.Scheme) && strings.EqualFold(api.Host, request.URL.Host)
}

// authorize returns a copy of the request, which a RoundTripper must not change.
func authorize(request *http.Request, d token.Document) *http.Request {
	request = request.Clone(request.Context())
	request.Header.Set("Authorization", "Bearer "+d.AccessToken.Reveal())
	if d.CompanyID != "" && request.Header.Get("Procore-Company-Id") == "" {
		request.Header.Set("Procore-Company-Id", d.CompanyID)
	}
	return request
}

// repeat returns the request with its body from the start, if that is possible.
func repeat(request *http.Request) (*http.Request, bool) {
	again := *request
	if request.Body == nil || request.Body == http.NoBody {
		return &again, true
	}
	if request.GetBody == nil {
		return nil, false
	}
	body, err := request.GetBody()
	if err != nil {
		return nil, false
	}
	again.Body = body
	return &again, true
}

func discard(body io.Closer) {
	if body != nil {
		body.Close()
	}
}
