package procore

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

const (
	defaultRedeemTimeout = 20 * time.Second
	defaultVersion       = "dev"
	askTimeout           = 10 * time.Second // each request other than a redeem
	maxBody              = 256 << 10        // bytes of an answer of the token endpoint that are read
	maxHeader            = 64 << 10
)

// Config sets up an Issuer. The zero Config is usable.
type Config struct {
	// RedeemTimeout is the longest one redeem may take, from looking up the
	// host to the last byte of the answer. 0: 20 s.
	RedeemTimeout time.Duration
	// Version of the program, for the User-Agent. Empty: "dev".
	Version string
	// Proxy is the HTTP proxy through which all requests to https:// URLs go, in
	// tunnels (CONNECT), so that it sees host names only. nil: no proxy.
	Proxy *url.URL
}

// Issuer is Procore's authorization server. It is safe for concurrent use.
type Issuer struct {
	redeemTimeout time.Duration
	agent         string
	tokens        *http.Transport // redeems only
	asking        *http.Transport // everything else
	now           func() time.Time
}

var _ rotation.Issuer = (*Issuer)(nil)

// New returns an Issuer with its own connections.
func New(cfg Config) *Issuer {
	if cfg.RedeemTimeout <= 0 {
		cfg.RedeemTimeout = defaultRedeemTimeout
	}
	if cfg.Version == "" {
		cfg.Version = defaultVersion
	}
	i := &Issuer{
		redeemTimeout: cfg.RedeemTimeout,
		agent:         "tokenturn/" + cfg.Version + " (+https://github.com/tokenturn/tokenturn)",
		tokens:        tokenTransport(),
		asking:        plainTransport(),
		now:           time.Now,
	}
	if cfg.Proxy != nil {
		tunnel(i.tokens, cfg.Proxy)
		tunnel(i.asking, cfg.Proxy)
	}
	return i
}

// plainTransport uses no proxy, whatever the environment variables say (see
// unreached): only Config.Proxy names one. It is used without an http.Client, so it
// follows no redirect and keeps no cookie.
func plainTransport() *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: askTimeout}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    askTimeout,
		ForceAttemptHTTP2:      true,
		IdleConnTimeout:        30 * time.Second,
		MaxIdleConns:           16,
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true,
	}
}

// tokenTransport sends each request once. net/http repeats a request on its own
// in two cases: over HTTP/1 when a connection that was used before turns out to
// be dead, over HTTP/2 when the server refused the stream or is going away.
// Here every request has its own connection, and there is no HTTP/2. As a second
// protection, the body cannot be rewound; see newRedeem.
func tokenTransport() *http.Transport {
	t := plainTransport()
	t.DisableKeepAlives = true
	t.ForceAttemptHTTP2 = false
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	return t
}

// CloseIdleConnections drops connections that wait for another request. Call it
// when the process may have been frozen since the last one, as AWS Lambda
// does between two invocations: such connections are often dead. Redeems do
// not depend on it; they reuse no connection.
func (i *Issuer) CloseIdleConnections() {
	i.tokens.CloseIdleConnections()
	i.asking.CloseIdleConnections()
}

// Redeem implements rotation.Issuer. It sends one POST, or none, and returns
// within the redeem timeout. Cancelling ctx stops it; once the request may have
// been sent, the result is then UnknownResult. So a caller that must not lose the
// answer passes a context without its own cancellation. A 2xx answer is Captured
// with the part of its body that arrived, up to 256 KiB, even if the rest did not
// arrive.
func (i *Issuer) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	ctx, cancel := context.WithTimeout(ctx, i.redeemTimeout)
	defer cancel()
	// GotConn is called before the first byte of the request is written and
	// after the TLS handshake. Until then nothing can have been presented; from
	// then on, anything may have been.
	connected := false
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected = true },
	})
	req, err := i.newRedeem(ctx, app, grant)
	if err != nil {
		return rotation.Answer{Class: rotation.NotSent, Detail: err.Error()}
	}
	resp, err := i.tokens.RoundTrip(req)
	switch {
	case err != nil && !connected:
		return rotation.Answer{Class: rotation.NotSent, Detail: "not sent: " + unreached(err)}
	case err != nil:
		return rotation.Answer{Class: rotation.UnknownResult, Detail: "sent, but no answer: " + fault(err)}
	}
	body, err := read(resp)
	return classify(resp.StatusCode, resp.Header, body, err, i.now())
}

// read returns what arrives of a body, at most maxBody bytes of it, and closes
// it. 101 (Switching Protocols) has no body: net/http returns the bare
// connection instead, which no context ends.
func read(resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return nil, nil
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxBody))
}

// newRedeem makes a request that cannot be sent twice: GetBody is not set, so
// net/http cannot rewind the body.
func (i *Issuer) newRedeem(ctx context.Context, app rotation.Application, grant rotation.Grant) (*http.Request, error) {
	fields := map[string]string{"client_id": app.ClientID, "client_secret": app.ClientSecret.Reveal()}
	given := 0
	for _, is := range []bool{!grant.RefreshToken.IsZero(), !grant.Code.IsZero(), grant.ClientCredentials} {
		if is {
			given++
		}
	}
	switch {
	case given != 1:
		return nil, errors.New("not sent: present exactly one of a refresh token, a code and the client's credentials")
	case grant.ClientCredentials:
		fields["grant_type"] = "client_credentials"
	case !grant.RefreshToken.IsZero():
		fields["grant_type"] = "refresh_token"
		fields["refresh_token"] = grant.RefreshToken.Reveal()
	default:
		fields["grant_type"] = "authorization_code"
		fields["code"] = grant.Code.Reveal()
		fields["redirect_uri"] = grant.RedirectURI
		if !grant.Verifier.IsZero() {
			fields["code_verifier"] = grant.Verifier.Reveal()
		}
	}
	body, err := json.Marshal(fields)
	if err != nil {
		return nil, errors.New("not sent: the request cannot be written as JSON")
	}
	req, err := i.request(ctx, http.MethodPost, app.LoginURL+"/oauth/token", string(body))
	if err != nil {
		return nil, errors.New("not sent: " + err.Error())
	}
	req.Header.Set("Content-Type", "application/json")
	req.GetBody = nil
	return req, nil
}

// request makes a request with the headers that all requests share.
func (i *Issuer) request(ctx context.Context, method, address, body string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		return nil, errors.New("the URLs of the environment cannot be used; check them with `tokenturn app show`")
	}
	req.Header.Set("User-Agent", i.agent)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Accept-Encoding", "identity")
	return req, nil
}

// Parse implements rotation.Issuer.
func (i *Issuer) Parse(body token.Secret) rotation.Judgement { return Parse(body) }
