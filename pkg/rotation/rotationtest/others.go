package rotationtest

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var (
	_ rotation.Applications = (*Applications)(nil)
	_ rotation.Notifier     = (*Notifier)(nil)
)

var refreshTokenField = regexp.MustCompile(`"refresh_token":"([^"]+)"`)

// refreshTokensIn finds the different whole refresh tokens in a body.
func refreshTokensIn(body token.Secret) []token.Secret {
	var found []token.Secret
	for _, match := range refreshTokenField.FindAllStringSubmatch(body.Reveal(), -1) {
		if t := token.NewSecret(match[1]); !slices.Contains(found, t) {
			found = append(found, t)
		}
	}
	return found
}

// Applications keeps app credentials in memory.
type Applications struct {
	Gate  Gate
	mu    sync.Mutex
	apps  map[string]rotation.Application
	moved []string // environments with a changed client id
}

// Set adds or replaces the credentials of app.Environment.
func (a *Applications) Set(app rotation.Application) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.apps == nil {
		a.apps = map[string]rotation.Application{}
	}
	if was, found := a.apps[app.Environment]; found && was.ClientID != app.ClientID {
		a.moved = append(a.moved, app.Environment)
	}
	a.apps[app.Environment] = app
}

// Delete removes the credentials of an environment.
func (a *Applications) Delete(environment string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.apps, environment)
}

// clientID is the current client id of an environment.
func (a *Applications) clientID(environment string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.apps[environment].ClientID
}

// otherClients reports whether an environment has ever had another client id.
func (a *Applications) otherClients(environment string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Contains(a.moved, environment)
}

func (a *Applications) Application(ctx context.Context, environment string) (rotation.Application, error) {
	return Through(ctx, a.Gate, "applications.Application", token.Connection{}, func(bool) (rotation.Application, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		app, found := a.apps[environment]
		if !found {
			return app, fmt.Errorf("environment %s: %w", environment, rotation.ErrNoApplication)
		}
		return app, nil
	})
}

// Notifier records notices in the journal.
type Notifier struct {
	Gate    Gate
	Journal *Journal
	mu      sync.Mutex
	notices []rotation.Notice
}

func (n *Notifier) Notify(ctx context.Context, notice rotation.Notice) error {
	_, err := Through(ctx, n.Gate, "notifier.Notify", notice.Connection, func(bool) (struct{}, error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.notices = append(n.notices, notice)
		n.Journal.Add(ctx, notice.Connection, Noticed{notice})
		return struct{}{}, nil
	})
	return err
}

// Notices returns the notices that were sent, in order.
func (n *Notifier) Notices() []rotation.Notice {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.notices)
}

// Log is a writer for the logs, answers and errors of the program under test, so that Check
// can search them for secrets. Safe for concurrent use.
type Log struct {
	mu     sync.Mutex
	text   strings.Builder
	logged []logged
}

// logged is one log record: its actor, and the length of the journal at that time.
type logged struct {
	actor      string
	connection string // empty if the record names none
	entries    int
}

func (l *Log) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(text)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Logger writes everything to the log of the harness, and records when each actor logged.
func (b *Harness) Logger() *slog.Logger {
	return slog.New(&handler{slog.NewTextHandler(b.Log, &slog.HandlerOptions{Level: slog.LevelDebug}), b})
}

type handler struct {
	slog.Handler
	b *Harness
}

func (h *handler) Handle(ctx context.Context, record slog.Record) error {
	line := logged{actor: Actor(ctx)}
	record.Attrs(func(a slog.Attr) bool {
		if a.Key == "connection" {
			line.connection = a.Value.String()
		}
		return true
	})
	h.b.Log.mu.Lock()
	line.entries = len(h.b.Journal.Entries()) // never less than in the line before
	h.b.Log.logged = append(h.b.Log.logged, line)
	h.b.Log.mu.Unlock()
	return h.Handler.Handle(ctx, record)
}
