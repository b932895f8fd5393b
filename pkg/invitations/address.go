package invitations

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// ParsePublicURL reads the base URL under which people reach the handler, and
// returns it without a trailing slash. Plain HTTP is
// accepted on a loopback address only.
func ParsePublicURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("the public URL is not a URL: %w", err)
	}
	_, err = Origin(text)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("the public URL %q must be https://HOST[/PATH], or http:// on a loopback address, "+
			"without user, query and fragment", u.Redacted())
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = ""
	return u, nil
}

// Origin returns scheme, host and port of an address in the form that a
// Content-Security-Policy and RFC 6454 use.
func Origin(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", fmt.Errorf("not a URL: %w", err)
	}
	if u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())) {
		return "", fmt.Errorf("%q is neither https:// nor http:// on a loopback address", u.Redacted())
	}
	// Separators of a Content-Security-Policy are legal in a URL's host.
	if u.Hostname() == "" || strings.ContainsAny(u.Host, ";,'*\" ") {
		return "", fmt.Errorf("%q has no proper host", u.Redacted())
	}
	return u.Scheme + "://" + CanonicalHost(u.Scheme, u.Host), nil
}

// CanonicalHost is host in lower case and without the scheme's own port.
func CanonicalHost(scheme, host string) string {
	own := map[string]string{"https": ":443", "http": ":80"}[scheme]
	return strings.TrimSuffix(strings.ToLower(host), own)
}

func loopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	address, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && address.IsLoopback()
}
