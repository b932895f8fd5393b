package procoretest

import (
	"crypto/subtle"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"net/url"

	"github.com/tokenturn/tokenturn/pkg/webpage"
)

//go:embed pages.html
var pagesHTML string

var pages = template.Must(template.New("").Funcs(webpage.Funcs()).Parse(pagesHTML))

// cookieName differs from the programs under test, because cookies ignore the port.
const cookieName = "standin_session"

// session is one browser. Every form that it receives contains its csrf value.
type session struct {
	csrf string
	user *User // nil until signed in
}

// view is what pages.html shows.
type view struct {
	Title, CSRF, Request, Problem, Code string
	App                                 App
	User                                *User
}

func render(w http.ResponseWriter, status int, page string, v view) {
	// Browsers apply form-action to the redirect that answers the consent form, too, and that
	// one leads to the app.
	webpage.Protect(w.Header(), "form-action 'self' http: https:")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Referrer-Policy", "same-origin")
	w.WriteHeader(status)
	_ = pages.ExecuteTemplate(w, page, v)
}

func problem(w http.ResponseWriter, text string) {
	render(w, http.StatusBadRequest, "problem", view{Title: "An error has occurred", Problem: text})
}

func (h *Handler) front(w http.ResponseWriter, _ *http.Request) {
	render(w, http.StatusOK, "front", view{Title: "Stand-in for Procore"})
}

// authorization is a valid request of RFC 6749 section 4.1.1.
type authorization struct {
	app                           App
	redirectURI, state, challenge string
}

// parseAuthorization checks the query of an authorization request. wrong is
// for the person and never sent to the redirect URI; empty if the request is valid.
func (h *Handler) parseAuthorization(query string) (_ authorization, wrong string) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return authorization{}, "The request cannot be read."
	}
	for _, several := range values {
		if len(several) > 1 {
			return authorization{}, "The request includes a parameter more than once."
		}
	}
	h.mu.Lock()
	app, known := h.apps[values.Get("client_id")]
	h.mu.Unlock()
	challenge := values.Get("code_challenge")
	switch {
	case !known:
		return authorization{}, "The client is unknown."
	case !app.registered(values.Get("redirect_uri")):
		return authorization{}, "The requested redirect uri is malformed or doesn't match client redirect URI."
	case values.Get("response_type") != "code":
		return authorization{}, "The authorization server does not support this response type."
	case values.Get("scope") != "":
		return authorization{}, "The requested scope is invalid, unknown, or malformed."
	case (challenge != "" || values.Has("code_challenge_method")) && (values.Get("code_challenge_method") != "S256" ||
		!isS256(challenge)):
		return authorization{}, "The code challenge method must be S256, with a challenge to match."
	}
	return authorization{app, values.Get("redirect_uri"), values.Get("state"), challenge}, ""
}

func isS256(challenge string) bool {
	sum, err := base64.RawURLEncoding.DecodeString(challenge)
	return err == nil && len(sum) == 32
}

// authorize serves GET /oauth/authorize: the sign-in page, then the consent page.
func (h *Handler) authorize(w http.ResponseWriter, r *http.Request) {
	request, wrong := h.parseAuthorization(r.URL.RawQuery)
	if wrong != "" {
		problem(w, wrong)
		return
	}
	s := h.session(r)
	if s == nil {
		s = h.newSession(w, nil)
	}
	if s.user == nil {
		h.showSignIn(w, http.StatusOK, s, request.app, r.URL.RawQuery, "")
		return
	}
	render(w, http.StatusOK, "consent", view{Title: "Allow access?", CSRF: s.csrf, Request: r.URL.RawQuery,
		App: request.app, User: s.user})
}

func (h *Handler) showSignIn(w http.ResponseWriter, status int, s *session, app App, request, complaint string) {
	render(w, status, "sign-in", view{Title: "Sign in", CSRF: s.csrf, Request: request, App: app, User: &h.users[0],
		Problem: complaint})
}

// signIn serves the sign-in form.
func (h *Handler) signIn(w http.ResponseWriter, r *http.Request) {
	s, request, wrong := h.form(r)
	if wrong != "" {
		problem(w, wrong)
		return
	}
	user := h.user(r.PostForm.Get("login"))
	if user == nil || subtle.ConstantTimeCompare([]byte(user.Password), []byte(r.PostForm.Get("password"))) != 1 {
		h.showSignIn(w, http.StatusUnauthorized, s, request.app, r.PostForm.Get("request"),
			"This server has no account with that login and password.")
		return
	}
	h.newSession(w, user) // a new one, so that nobody else can have chosen its id
	http.Redirect(w, r, "/oauth/authorize?"+r.PostForm.Get("request"), http.StatusSeeOther)
}

// decide serves the consent form.
func (h *Handler) decide(w http.ResponseWriter, r *http.Request) {
	s, request, wrong := h.form(r)
	switch {
	case wrong != "":
		problem(w, wrong)
	case s.user == nil:
		problem(w, "You are not signed in.")
	case r.PostForm.Get("decision") == "allow":
		h.allow(w, r, s.user, request)
	case r.PostForm.Get("decision") == "deny":
		deny(w, r, request)
	default:
		problem(w, "Choose Allow or Deny.")
	}
}

// form reads a form that this server has shown to this browser. wrong is as in parseAuthorization.
func (h *Handler) form(r *http.Request) (_ *session, _ authorization, wrong string) {
	if err := r.ParseForm(); err != nil {
		return nil, authorization{}, "The form cannot be read."
	}
	s := h.session(r)
	if s == nil || subtle.ConstantTimeCompare([]byte(s.csrf), []byte(r.PostForm.Get("csrf"))) != 1 {
		return nil, authorization{}, "This form is not from this session. Start again."
	}
	request, wrong := h.parseAuthorization(r.PostForm.Get("request"))
	return s, request, wrong
}

func (h *Handler) session(r *http.Request) *session {
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sessions[cookie.Value]
}

func (h *Handler) newSession(w http.ResponseWriter, user *User) *session {
	id, s := random(), &session{csrf: random(), user: user}
	h.mu.Lock()
	h.sessions[id] = s
	h.mu.Unlock()
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: id, Path: "/oauth", HttpOnly: true,
		SameSite: http.SameSiteLaxMode})
	return s
}

func (h *Handler) allow(w http.ResponseWriter, r *http.Request, user *User, request authorization) {
	value := random()
	h.mu.Lock()
	h.codes[value] = &code{client: request.app.ClientID, redirectURI: request.redirectURI, challenge: request.challenge,
		user: user, created: h.now()}
	h.mu.Unlock()
	if request.redirectURI == OutOfBand {
		http.Redirect(w, r, "/oauth/authorize/native?code="+value, http.StatusFound)
		return
	}
	redirect(w, r, request, url.Values{"code": {value}})
}

func deny(w http.ResponseWriter, r *http.Request, request authorization) {
	const text = "The resource owner or authorization server denied the request."
	if request.redirectURI != OutOfBand {
		redirect(w, r, request, url.Values{"error": {"access_denied"}, "error_description": {text}})
		return
	}
	answer := map[string]any{"error": "access_denied", "error_description": text}
	if request.state != "" {
		answer["state"] = request.state
	}
	jsonResponse(http.StatusBadRequest, answer).write(w)
}

// redirect sends the browser back to the app, which gets its own query back as well.
func redirect(w http.ResponseWriter, r *http.Request, request authorization, result url.Values) {
	target, err := url.Parse(request.redirectURI)
	if err != nil {
		problem(w, "The registered redirect URI is not a URL.")
		return
	}
	if request.state != "" {
		result.Set("state", request.state)
	}
	if target.RawQuery != "" {
		target.RawQuery += "&"
	}
	target.RawQuery += result.Encode()
	http.Redirect(w, r, target.String(), http.StatusFound)
}

// native shows the code of the out-of-band flow.
func (h *Handler) native(w http.ResponseWriter, r *http.Request) {
	render(w, http.StatusOK, "native", view{Title: "Authorization code:", Code: r.URL.Query().Get("code")})
}
