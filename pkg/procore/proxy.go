package procore

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strconv"
)

// tunnel makes t reach https:// URLs through proxy. net/http sends requests to http://
// URLs to a proxy as they are, where the proxy could read the secrets in them. So these
// are sent directly; only custom environments on loopback addresses have such URLs.
func tunnel(t *http.Transport, proxy *url.URL) {
	t.Proxy = func(r *http.Request) (*url.URL, error) {
		if r.URL.Scheme != "https" || isLoopback(r.URL.Hostname()) {
			return nil, nil
		}
		return proxy, nil
	}
	t.OnProxyConnectResponse = func(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
		if answer.StatusCode != http.StatusOK {
			return &refusedByProxy{answer.StatusCode}
		}
		return nil
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// refusedByProxy is a proxy's answer to CONNECT other than 200. The host was not reached.
type refusedByProxy struct{ status int }

func (e *refusedByProxy) Error() string {
	text := "the proxy of TOKENTURN_PROXY refuses to connect to this host (HTTP " + strconv.Itoa(e.status) + ")"
	if e.status == http.StatusProxyAuthRequired {
		text += ": it wants a user name and a password, as in http://user:password@host:port"
	}
	return text
}
