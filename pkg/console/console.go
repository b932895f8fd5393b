// Package console serves live pages for the people who operate an installation: an overview
// of every connection with what needs a person, and the life of each connection. It is apart
// from the consent pages, which are public.
//
// The pages are complete without script, and are up to date when they are loaded. A small
// script keeps them so: GET /events is a stream of server-sent events with the rows that have
// changed. While at least one stream is open, the handler reads the ledger once per
// Config.Interval, for all browsers together.
//
// # Safety
//
// The handler answers browsers on the same machine only, unless Config.Password is set; then
// it answers everybody who has logged in. It accepts one Host, which ends DNS rebinding. Without
// a login it also refuses requests with a header that says that a proxy forwarded them. A proxy
// that sends no such header, but the right Host, is not recognized: behind a proxy, always set
// Config.Password. Each POST has to come from
// a page of this handler, by its Origin or Sec-Fetch-Site and by a token in its form. Bodies,
// streams, sessions and the bytes that wait for a slow reader are bounded. No page contains a
// token or a client secret. A page contains a consent link only as the direct answer to the
// click that creates it.
//
// Other users of the same machine can use a console without a password.
package console

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Connections are what the console shows. A ledger satisfies it. If it also is a Versioned,
// the console reads the list only when it has changed.
type Connections interface {
	// List returns the record of every connection.
	List(ctx context.Context) ([]rotation.Record, error)
	// Load returns one record; see rotation.Ledger.
	Load(ctx context.Context, c token.Connection) (rotation.Record, []rotation.TokenResponse, error)
	// History returns at most limit events, the newest first.
	History(ctx context.Context, c token.Connection, limit int) ([]rotation.Event, error)
}

// Versioned are Connections that can tell cheaply whether the list has changed.
type Versioned interface {
	// ListVersion returns a text that differs whenever List would return something else.
	ListVersion(ctx context.Context) (string, error)
}

// Actions are what a person can do here. Each returns a sentence for the person, without
// anything secret. An error is for the person, too.
type Actions interface {
	// Rotate replaces the token pair now. It waits for no earlier failure.
	Rotate(ctx context.Context, c token.Connection) (string, error)
	// Release ends a quarantine: refresh is the correct refresh token.
	Release(ctx context.Context, c token.Connection, refresh token.Secret) (string, error)
	// Discard ends a quarantine by giving up the response.
	Discard(ctx context.Context, c token.Connection) (string, error)
	// Disconnect revokes the tokens and deletes the secret.
	Disconnect(ctx context.Context, c token.Connection) (string, error)
	// Invite creates a link with which one person can consent.
	Invite(ctx context.Context, c token.Connection) (link token.Secret, expires time.Time, err error)
}

// Experiments are the faults that a person can cause in the demo.
type Experiments interface {
	// Experiments returns all of them in the order shown, with their present state.
	Experiments() []Experiment
	// Start causes the fault with the name.
	Start(ctx context.Context, name string) error
	// Changed returns a channel that is closed at the next change of any state.
	Changed() <-chan struct{}
}

// Experiment is one fault.
type Experiment struct {
	Name    string // in the form's action: [a-z0-9-]
	Title   string // on the button
	Promise string // what should happen
	Steps   []Step
	State   string // ready, running, done or failed
	Why     string // why it failed
	Wait    string // why it cannot start now; empty if it can
}

// Step is one thing that should happen.
type Step struct {
	Text string
	Done bool
	At   time.Time
}

// Config is what New needs. Connections, PublicURL and Logger are required.
type Config struct {
	Connections Connections
	Actions     Actions                  // nil: read-only
	Notices     func() []rotation.Notice // newest first; nil: none are kept
	Experiments Experiments              // nil: no panel
	// PublicURL is where people open the console. Its host is the only one accepted.
	PublicURL string
	// Password lets people log in from elsewhere. Zero: only browsers on this machine.
	Password token.Secret
	Cadence  time.Duration // time between two sweeps, as the pages say it; 0: not known
	// Interval is the time between two reads of the list while somebody looks; 0: 1 s.
	Interval time.Duration
	// MaxStreams is how many browsers are kept up to date at once; 0: 100.
	MaxStreams int
	// PutsPerDay is how many versions a secret takes in a day; 0: no limit.
	PutsPerDay int
	// Installation is the name in the bar on top; may be empty. Sandbox and production must not
	// be mixed up.
	Installation string
	// Command is how to run the command for this installation, such as "tokenturn --store aws".
	Command string
	// SecretPrefix begins the names of secrets in AWS Secrets Manager; empty: the embedded store.
	SecretPrefix string
	// ReaderToken is the file with the token for the read API of this process; empty: it has none.
	ReaderToken string
	// RedirectURI is what a new app needs, for the page without connections.
	RedirectURI string
	Logger      *slog.Logger
	Now         func() time.Time // nil: time.Now
}

// Handler serves the console. It is safe for concurrent use.
type Handler struct {
	cfg    Config
	public *url.URL
	pages  *template.Template
	boot   string // differs for every start, so that a page notices a new process
	guard  guard
	state  state
	over   chan struct{} // closed by Close
	// patience with slow readers
	patience time.Duration
	close    sync.Once
}

// New checks the configuration and reports all problems at once.
func New(cfg Config) (*Handler, error) {
	var problems []error
	public, err := url.Parse(cfg.PublicURL)
	if err != nil || public.Host == "" || public.Scheme != "http" && public.Scheme != "https" ||
		strings.Trim(public.Path, "/") != "" {
		problems = append(problems, fmt.Errorf("console.Config.PublicURL %q is not an address such as "+
			"http://localhost:8090", cfg.PublicURL))
	}
	if cfg.Connections == nil {
		problems = append(problems, errors.New("console.Config.Connections is missing"))
	}
	if cfg.Logger == nil {
		problems = append(problems, errors.New("console.Config.Logger is missing"))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	public.Host = canonicalHost(public.Scheme, public.Host)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Interval <= 0 {
		cfg.Interval = time.Second
	}
	if cfg.MaxStreams <= 0 {
		cfg.MaxStreams = 100
	}
	if cfg.Command == "" {
		cfg.Command = "tokenturn"
	}
	h := &Handler{cfg: cfg, public: public, boot: rand.Text(), over: make(chan struct{}),
		patience: patience}
	h.guard = newGuard(cfg, public)
	h.pages = parsePages()
	h.state.init()
	return h, nil
}

// Close ends all streams. Pages are still served.
func (h *Handler) Close() { h.close.Do(func() { close(h.over) }) }

// Wrap serves the paths of the console and leaves every other path to next.
func (h *Handler) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.Owns(r.URL.Path) {
			h.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Owns reports whether a path is one of the console's, whatever it finds there.
func (h *Handler) Owns(path string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch first {
	case "", "connections", "console", "events", "experiments", "login", "logout", "notices":
		return true
	}
	return false
}
