package procoretest

import (
	"crypto/rand"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// OutOfBand is the redirect URI with which the code is shown on a page.
const OutOfBand = "urn:ietf:wg:oauth:2.0:oob"

// App is a registered client.
type App struct {
	Name         string
	ClientID     string
	ClientSecret token.Secret
	RedirectURIs []string // OutOfBand may be one
	// ServiceAccount lists the companies that permit the app to act for itself
	// (client_credentials). nil: there is no such account.
	ServiceAccount []int64
}

// User is an account that a person can sign in to.
type User struct {
	ID        int64
	Login     string
	Password  string
	Name      string
	Companies []int64
}

// DefaultUser is the account of a server that is given no other.
func DefaultUser() User {
	return User{ID: 160586, Login: "pat@example.com", Password: "correct horse", Name: "Pat Example",
		Companies: []int64{4264807}}
}

// Personality is a way in which servers differ.
type Personality int

const (
	// OldLivesUntilFirstUse keeps the old pair alive until the new access token
	// is first used, as Doorkeeper does with its previous_refresh_token column.
	// Without it the old pair dies at the refresh.
	OldLivesUntilFirstUse Personality = iota
	// ReuseKillsFamily ends all pairs of one consent when one of their spent
	// refresh tokens is presented (RFC 9700 section 4.14.2).
	ReuseKillsFamily
	// NoNewRefreshToken answers a refresh with an access token only; the
	// refresh token stays good (RFC 6749 section 6 allows it).
	NoNewRefreshToken
	// OldRelease answers every error of the token endpoint with 401, uses
	// "bearer", scopes and expires_in_seconds, and answers 200 to any revocation, as
	// Doorkeeper 4.4 does.
	OldRelease
	// ExpiredSurviveRevocation answers 200 to the revocation of a pair with an
	// expired access token and revokes nothing, as Doorkeeper did before 5.8.1.
	ExpiredSurviveRevocation
)

// Option sets up a Handler.
type Option func(*Handler)

// With gives the server personalities.
func With(personalities ...Personality) Option {
	return func(h *Handler) { h.personality = append(h.personality, personalities...) }
}

// WithApp registers an app; see also NewApp.
func WithApp(app App) Option { return func(h *Handler) { h.Register(app) } }

// WithUser adds an account.
func WithUser(user User) Option { return func(h *Handler) { h.users = append(h.users, user) } }

// WithClock replaces time.Now. Only durations of scripted answers are real.
func WithClock(now func() time.Time) Option { return func(h *Handler) { h.now = now } }

// WithLifetime sets how long access tokens live; 90 minutes otherwise.
func WithLifetime(lifetime time.Duration) Option {
	return func(h *Handler) { h.lifetime = lifetime }
}

// Handler is the stand-in as an http.Handler. It is safe for concurrent use.
type Handler struct {
	mux   *http.ServeMux
	now   func() time.Time
	users []User

	mu            sync.Mutex // guards all below
	personality   []Personality
	down          int           // status of every answer; 0: the server is up
	changed       chan struct{} // closed at the next presentation; nil: nobody waits
	lifetime      time.Duration
	apps          map[string]App // by client id
	codes         map[string]*code
	pairs         []*pair
	byAccess      map[string]*pair
	byRefresh     map[string]*pair
	families      int
	sessions      map[string]*session
	uninstalled   map[installation]bool
	script        []Answer
	presentations []Presentation
}

// NewHandler returns a stand-in that does not listen by itself.
func NewHandler(options ...Option) *Handler {
	h := &Handler{now: time.Now, lifetime: 90 * time.Minute, apps: map[string]App{}, sessions: map[string]*session{},
		uninstalled: map[installation]bool{}}
	h.Forget()
	for _, option := range options {
		option(h)
	}
	if len(h.users) == 0 {
		h.users = []User{DefaultUser()}
	}
	h.mux = http.NewServeMux()
	h.mux.HandleFunc("GET /{$}", h.front)
	h.mux.HandleFunc("GET /oauth/authorize", h.authorize)
	h.mux.HandleFunc("POST /oauth/authorize", h.decide)
	h.mux.HandleFunc("POST /oauth/login", h.signIn)
	h.mux.HandleFunc("GET /oauth/authorize/native", h.native)
	h.mux.HandleFunc("POST /oauth/token", h.token)
	h.mux.HandleFunc("GET /oauth/token/info", h.info)
	h.mux.HandleFunc("POST /oauth/revoke", h.revoke)
	h.mux.HandleFunc("GET /rest/v1.0/me", h.me)
	h.mux.HandleFunc("GET /rest/v1.0/companies", h.companies)
	h.mux.HandleFunc("GET /rest/v1.0/projects", h.projects)
	return h
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if h.isDown(w, r) {
		return
	}
	h.mux.ServeHTTP(w, r)
}

// is must be called with h.mu held.
func (h *Handler) is(p Personality) bool { return slices.Contains(h.personality, p) }

func (h *Handler) user(login string) *User {
	for i := range h.users {
		if h.users[i].Login == login {
			return &h.users[i]
		}
	}
	return nil
}

// random returns 130 random bits and more as text that needs no escaping.
func random() string { return rand.Text() + rand.Text() }
