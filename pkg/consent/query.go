package consent

import (
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Bounds on what a stranger can make the handler read. API Gateway's own
// bound is 10,240 bytes for request line and headers together.
const (
	maxQuery  = 4096
	maxCookie = 8192
	maxCode   = 2048
)

// response is the authorization response (RFC 6749 sections 4.1.2 and
// 4.1.2.1) in its only acceptable form. Exactly one of code and problem is set.
type response struct {
	state   token.Secret
	code    token.Secret
	problem string // the error parameter; its text is never shown
	issuer  string // RFC 9207; empty if the server did not send it
	cookie  token.Secret
}

// parseResponse reads the response and the cookie that belongs to its state.
// The complaint is for the log and contains nothing of the request.
func parseResponse(r *http.Request, cookies cookieJar) (_ response, complaint string) {
	values, complaint := strictQuery(r.URL.RawQuery)
	if complaint != "" {
		return response{}, complaint
	}
	state, ok := invitations.ParseSecret(values["state"])
	if !ok {
		return response{}, "not a state of tokenturn"
	}
	code, hasCode := values["code"]
	problem, hasProblem := values["error"]
	switch {
	case hasCode == hasProblem:
		return response{}, "not exactly one of code and error"
	case hasCode && !visibleASCII(code, maxCode):
		return response{}, "malformed code"
	case hasProblem && !visibleASCII(problem, 64):
		return response{}, "malformed error"
	}
	issuer, hasIssuer := values["iss"]
	if hasIssuer && !visibleASCII(issuer, 512) {
		return response{}, "malformed iss"
	}
	cookie, complaint := cookies.read(r, state)
	if complaint != "" {
		return response{}, complaint
	}
	return response{state: state, code: token.NewSecret(code), problem: problem, issuer: issuer, cookie: cookie}, ""
}

// strictQuery parses a query in which no parameter comes twice (RFC 6749
// section 3.1) and nothing is ill-formed, unprintable or oversized.
func strictQuery(raw string) (_ map[string]string, complaint string) {
	if raw == "" || len(raw) > maxQuery {
		return nil, "query missing or too long"
	}
	parsed, err := url.ParseQuery(raw)
	if err != nil {
		return nil, "malformed query"
	}
	values := make(map[string]string, len(parsed))
	for name, all := range parsed {
		if len(all) != 1 {
			return nil, "parameter given twice"
		}
		if !printable(name) || !printable(all[0]) {
			return nil, "unprintable characters"
		}
		values[name] = all[0]
	}
	return values, ""
}

func printable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}

// visibleASCII reports whether text is 1 to limit characters without spaces.
func visibleASCII(text string, limit int) bool {
	return text != "" && len(text) <= limit &&
		!strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' })
}
