// Package console serves a live page for people that shows every connection, its life and
// what it needs from a person. It is apart from the consent pages, which are public.
package console

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Connections are what the console shows. A ledger satisfies it.
type Connections interface {
	// List returns the record of every connection.
	List(ctx context.Context) ([]rotation.Record, error)
	// Load returns one record; see rotation.Ledger.
	Load(ctx context.Context, c token.Connection) (rotation.Record, []rotation.TokenResponse, error)
	// History returns at most limit events, the newest first.
	History(ctx context.Context, c token.Connection, limit int) ([]rotation.Event, error)
}

// Actions are what a person can do here. Each returns a sentence for the person, without
// anything secret. An error is for the person, too.
type Actions interface {
	Rotate(ctx context.Context, c token.Connection) (string, error)
	// Retry ends the waits of a connection after a failure and tries again.
	Retry(ctx context.Context, c token.Connection) (string, error)
	Release(ctx context.Context, c token.Connection) (string, error)
	Discard(ctx context.Context, c token.Connection) (string, error)
	Disconnect(ctx context.Context, c token.Connection) (string, error)
	// Invite creates a link with which one person can consent.
	Invite(ctx context.Context, c token.Connection) (link token.Secret, expires time.Time, err error)
}

// Experiments are the faults that a person can cause in the demo.
type Experiments interface {
	// Experiments returns all of them in the order shown, with their present state.
	Experiments() []Experiment
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
	Wait    string // why it cannot start now; empty if it can
}

// Step is one thing that should happen.
type Step struct {
	Text string
	Done bool
	At   time.Time
}

// Config is what New needs.
type Config struct {
	Connections Connections
	Actions     Actions                  // nil: read-only
	Notices     func() []rotation.Notice // newest first; nil: none are kept
	Experiments Experiments              // nil: no panel
	PublicURL   string                   // its host is the only one accepted
	Cadence     time.Duration            // time between two sweeps
	Logger      *slog.Logger
	Now         func() time.Time
}

// Handler serves the console.
type Handler struct {
	cfg Config
}

// New checks the configuration.
func New(cfg Config) (*Handler, error) {
	if cfg.Connections == nil || cfg.PublicURL == "" || cfg.Logger == nil || cfg.Now == nil {
		return nil, errors.New("console: Connections, PublicURL, Logger and Now are required")
	}
	return &Handler{cfg: cfg}, nil
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusNotFound)
}
