package consent

import (
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// stateLifetime is how long a person has between the button and the callback.
// Procore's codes live as long.
const stateLifetime = 10 * time.Minute

// cookieJar sets and reads the cookie that binds a state to the browser that
// started. Each state has a cookie with its own name, so two tabs do not share one.
type cookieJar struct {
	// plain is for http:// on a loopback address: the __Host- prefix demands
	// Secure, which not every browser accepts without TLS.
	plain bool
}

func (j cookieJar) name(state token.Secret) string {
	name := "tokenturn-" + invitations.Hash(state)[:12]
	if j.plain {
		return name
	}
	return "__Host-" + name
}

// resultLife is how long the browser that finished can show the result.
const resultLife = time.Hour

func (j cookieJar) resultName() string {
	if j.plain {
		return "tokenturn-result"
	}
	return "__Host-tokenturn-result"
}

// writeResult sets the cookie with which /connected finds the state and knows its browser.
func (j cookieJar) writeResult(w http.ResponseWriter, stateHash string, cookie token.Secret) {
	http.SetCookie(w, &http.Cookie{Name: j.resultName(), Value: stateHash + "." + cookie.Reveal(), Path: "/",
		MaxAge: int(resultLife.Seconds()), Secure: !j.plain, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

var hashForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// readResult returns what writeResult wrote.
func (j cookieJar) readResult(r *http.Request) (stateHash string, cookie token.Secret, ok bool) {
	found := r.CookiesNamed(j.resultName())
	if len(found) != 1 {
		return "", token.Secret{}, false
	}
	stateHash, text, _ := strings.Cut(found[0].Value, ".")
	cookie, ok = invitations.ParseSecret(text)
	return stateHash, cookie, ok && hashForm.MatchString(stateHash)
}

// write sets the cookie. SameSite is Lax because the callback is a
// navigation that another site started.
func (j cookieJar) write(w http.ResponseWriter, state, value token.Secret) {
	http.SetCookie(w, &http.Cookie{Name: j.name(state), Value: value.Reveal(), Path: "/",
		MaxAge: int(stateLifetime.Seconds()), Secure: !j.plain, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

// read returns the state's cookie if the request has exactly one of it.
func (j cookieJar) read(r *http.Request, state token.Secret) (_ token.Secret, complaint string) {
	size := 0
	for _, line := range r.Header["Cookie"] {
		size += len(line)
	}
	if size > maxCookie {
		return token.Secret{}, "cookies too long"
	}
	found := r.CookiesNamed(j.name(state))
	if len(found) != 1 {
		return token.Secret{}, "not exactly one cookie of this state"
	}
	value, ok := invitations.ParseSecret(found[0].Value)
	if !ok {
		return token.Secret{}, "malformed cookie"
	}
	return value, ""
}
