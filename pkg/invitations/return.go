package invitations

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// longestReturn bounds an address to return to, which a state keeps.
const longestReturn = 2000

// returnForm is an absolute address in the one spelling that all browsers and servers read
// alike: no user, no backslash, no character outside of visible ASCII, no fragment, and
// nothing in the host but letters, digits, dots and hyphens, or an IP address.
var returnForm = regexp.MustCompile(`^https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?` +
	`(/[!$%&(-;=@-Z_a-z~]*(\?[!$%&(-;=?-Z_a-z~]*)?)?$`)

// resultNames are the parameters that ReturnAddress adds.
var resultNames = []string{"connection", "result", "reference"}

// ErrOrigin: a return URL is well-formed, and leads to an origin that is not in the list.
var ErrOrigin = errors.New("not one of the origins that this installation allows")

// ParseReturnURL reads an address to which a person is led back after a consent. Its scheme,
// host and port must be one of origins, which are as ParseReturnOrigins returns them.
// ErrOrigin.
func ParseReturnURL(text string, origins []string) (*url.URL, error) {
	if len(text) > longestReturn || !returnForm.MatchString(text) {
		return nil, errors.New("the return URL must be https://HOST[:PORT][/PATH][?QUERY], or http:// on a loopback " +
			"address, without user, fragment and quotes")
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("the return URL is not a URL")
	}
	origin, err := Origin(text)
	if err != nil {
		return nil, fmt.Errorf("the return URL: %w", err)
	}
	if !slices.Contains(origins, origin) {
		list := cmp.Or(strings.Join(origins, ", "), "none are allowed")
		return nil, fmt.Errorf("the return URL leads to %s, which is %w (%s)", origin, ErrOrigin, list)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("the query of the return URL is malformed")
	}
	for _, name := range resultNames {
		if query.Has(name) {
			return nil, fmt.Errorf("the return URL has the parameter %q, which tokenturn adds itself", name)
		}
	}
	return u, nil
}

// ParseReturnOrigins reads a list of origins, such as "https://app.example.com", separated
// by commas or spaces. Nothing but scheme, host and port may be in one.
func ParseReturnOrigins(text string) (origins []string, err error) {
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		origin, err := Origin(part)
		if err != nil || !returnForm.MatchString(part) || canonicalOrigin(part) != origin {
			return nil, fmt.Errorf("%q is not an origin: it takes https://HOST[:PORT], or http:// on a loopback address, and "+
				"nothing after it", part)
		}
		origins = append(origins, origin)
	}
	return origins, nil
}

// canonicalOrigin is an origin in lower case and without the scheme's own port.
func canonicalOrigin(text string) string {
	scheme, host, _ := strings.Cut(text, "://")
	return scheme + "://" + CanonicalHost(scheme, host)
}

// ReturnAddress is the address with what became of a consent in its query.
func ReturnAddress(u *url.URL, c token.Connection, result, reference string) string {
	back := *u
	added := url.Values{"connection": {c.String()}, "result": {result}, "reference": {reference}}.Encode()
	back.RawQuery = strings.TrimPrefix(back.RawQuery+"&"+added, "&")
	return back.String()
}
