package console

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

const (
	// sessionTime is how long a login lasts.
	sessionTime = 12 * time.Hour
	// maxSessions is how many logins are remembered; the oldest one makes room.
	maxSessions = 100
	// After maxAttempts wrong passwords within attemptTime, from everywhere together, further
	// ones are refused. The right password always works: otherwise anybody could lock everybody out.
	maxAttempts = 10
	attemptTime = time.Minute
)

// guard decides which requests are answered.
type guard struct {
	public   *url.URL
	origins  *http.CrossOriginProtection
	key      []byte // of the tokens in forms
	password token.Secret
	now      func() time.Time

	mu       sync.Mutex
	sessions map[[sha256.Size]byte]time.Time // by the hash of the cookie: the end
	failed   []time.Time                     // logins that failed lately
}

func newGuard(cfg Config, public *url.URL) guard {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails
	return guard{public: public, origins: http.NewCrossOriginProtection(), key: key, password: cfg.Password, now: cfg.Now,
		sessions: map[[sha256.Size]byte]time.Time{}}
}

// login reports whether people have to log in.
func (g *guard) login() bool { return !g.password.IsZero() }

// refuses says why a request gets no answer; status 0: it gets one.
func (g *guard) refuses(r *http.Request) (status int, why string) {
	switch {
	case canonicalHost(g.public.Scheme, r.Host) != g.public.Host: // DNS rebinding: a foreign name for this machine
		return http.StatusMisdirectedRequest, "This console is at " + g.public.Scheme + "://" + g.public.Host + "/."
	case !g.login() && (!isLocal(r) || isForwarded(r)):
		return http.StatusForbidden, "This console is only for browsers on the same machine."
	case g.origins.Check(r) != nil, r.Method != http.MethodGet && r.Method != http.MethodHead && !g.sameOrigin(r):
		return http.StatusForbidden, "The request comes from another site."
	case r.URL.Path == "/events" && (!sameSite(r) || !g.sameOrigin(r)):
		return http.StatusForbidden, "The request comes from another site."
	}
	return 0, ""
}

// canonicalHost is host in lower case and without the port that a browser leaves out.
func canonicalHost(scheme, host string) string {
	own := map[string]string{"https": ":443", "http": ":80"}[scheme]
	return strings.TrimSuffix(strings.ToLower(host), own)
}

// sameOrigin reports whether a request names the console as its origin, or none.
func (g *guard) sameOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	return origin == "" || strings.EqualFold(origin, g.public.Scheme+"://"+g.public.Host)
}

// sameSite reports whether the browser says that a page of the console, or the person, made
// the request. Programs that are no browsers say nothing.
func sameSite(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return true
	}
	return false
}

// crossSiteNavigation reports whether a link on another site led here.
func crossSiteNavigation(r *http.Request) bool {
	return !sameSite(r) && r.Header.Get("Sec-Fetch-Mode") == "navigate"
}

// isLocal reports whether a request comes from this machine.
func isLocal(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && from.Addr().Unmap().IsLoopback()
}

// isForwarded reports whether a proxy on this machine passes on the request of another one.
func isForwarded(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"} {
		if r.Header.Get(name) != "" {
			return true
		}
	}
	return false
}

// cookieName is the name of the one cookie. It identifies a browser and, after a login, the
// session.
func (g *guard) cookieName() string {
	if g.public.Scheme == "https" {
		return "__Host-tokenturn_console" // RFC 6265bis section 4.1.3.2: from this host, over https
	}
	return "tokenturn_console"
}

// browser returns the value of the cookie; empty: none that this handler could have set.
func (g *guard) browser(r *http.Request) string {
	cookie, err := r.Cookie(g.cookieName())
	if err != nil || len(cookie.Value) != len(rand.Text()) {
		return ""
	}
	return cookie.Value
}

// mark makes sure that the browser has a cookie, and returns its value. Consoles at several
// ports of one host share it.
func (g *guard) mark(w http.ResponseWriter, r *http.Request) string {
	value := g.browser(r)
	if value == "" {
		value = g.setCookie(w)
	}
	return value
}

func (g *guard) setCookie(w http.ResponseWriter) string {
	value := rand.Text()
	http.SetCookie(w, &http.Cookie{Name: g.cookieName(), Value: value, Path: "/", HttpOnly: true,
		Secure: g.public.Scheme == "https", SameSite: http.SameSiteStrictMode})
	return value
}

// formToken is the token in the forms of one browser.
func (g *guard) formToken(browser string) string {
	mac := hmac.New(sha256.New, g.key)
	mac.Write([]byte("form\x00" + browser))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// ours reports whether given is the token of a form that this browser was shown.
func (g *guard) ours(r *http.Request, given string) bool {
	browser := g.browser(r)
	return browser != "" && subtle.ConstantTimeCompare([]byte(given), []byte(g.formToken(browser))) == 1
}

// admits reports whether the browser is logged in, or need not be.
func (g *guard) admits(r *http.Request) bool {
	if !g.login() {
		return true
	}
	browser := g.browser(r)
	g.mu.Lock()
	defer g.mu.Unlock()
	return browser != "" && g.now().Before(g.sessions[sha256.Sum256([]byte(browser))])
}

// logIn compares the password. wait: it is wrong, and too many others were wrong lately.
func (g *guard) logIn(w http.ResponseWriter, given token.Secret) (done, wait bool) {
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	want, got := sha256.Sum256([]byte(g.password.Reveal())), sha256.Sum256([]byte(given.Reveal()))
	if subtle.ConstantTimeCompare(want[:], got[:]) != 1 {
		for len(g.failed) > 0 && now.Sub(g.failed[0]) >= attemptTime {
			g.failed = g.failed[1:]
		}
		if len(g.failed) >= maxAttempts {
			return false, true
		}
		g.failed = append(g.failed, now)
		return false, false
	}
	for len(g.sessions) >= maxSessions {
		var oldest [sha256.Size]byte
		for id, end := range g.sessions {
			if first, found := g.sessions[oldest]; !found || end.Before(first) {
				oldest = id
			}
		}
		delete(g.sessions, oldest)
	}
	// a new cookie: nobody can have set the one before
	g.sessions[sha256.Sum256([]byte(g.setCookie(w)))] = now.Add(sessionTime)
	return true, false
}

func (g *guard) logOut(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.sessions, sha256.Sum256([]byte(g.browser(r))))
	http.SetCookie(w, &http.Cookie{Name: g.cookieName(), Path: "/", MaxAge: -1, HttpOnly: true,
		Secure: g.public.Scheme == "https", SameSite: http.SameSiteStrictMode})
}

func (h *Handler) loginPage(w http.ResponseWriter, r *http.Request) {
	if h.guard.admits(r) {
		seeOther(w, "/")
		return
	}
	h.show(w, r, http.StatusOK, "login", view{})
}

func (h *Handler) logIn(w http.ResponseWriter, r *http.Request) {
	done, wait := h.guard.logIn(w, token.NewSecret(strings.TrimSpace(r.PostForm.Get("password"))))
	switch {
	case done:
		h.cfg.Logger.InfoContext(r.Context(), "console login", "from", r.RemoteAddr)
		seeOther(w, "/")
	case wait:
		h.cfg.Logger.WarnContext(r.Context(), "console login refused: too many failed attempts", "from", r.RemoteAddr)
		w.Header().Set("Retry-After", "60")
		h.show(w, r, http.StatusTooManyRequests, "login", view{Message: "Too many attempts failed. Wait a minute."})
	default:
		h.cfg.Logger.WarnContext(r.Context(), "console login failed", "from", r.RemoteAddr)
		h.show(w, r, http.StatusForbidden, "login", view{Message: "That is not the password."})
	}
}

func (h *Handler) logOut(w http.ResponseWriter, r *http.Request) {
	h.guard.logOut(w, r)
	seeOther(w, "/login")
}
