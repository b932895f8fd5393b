package rotationtest

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var (
	_ rotation.Applications = (*Applications)(nil)
	_ rotation.FollowUps    = (*FollowUps)(nil)
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

// Applications holds app credentials in memory.
type Applications struct {
	Gate Gate
	mu   sync.Mutex
	apps map[string]rotation.Application
}

// Set adds or replaces the credentials of app.Environment.
func (a *Applications) Set(app rotation.Application) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.apps == nil {
		a.apps = map[string]rotation.Application{}
	}
	a.apps[app.Environment] = app
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

// FollowUps keeps requests until somebody takes them.
type FollowUps struct {
	Gate    Gate
	Journal *Journal
	mu      sync.Mutex
	waiting []followUp
}

type followUp struct {
	request rotation.Request
	at      time.Time
}

func (f *FollowUps) Send(ctx context.Context, request rotation.Request, delay time.Duration) error {
	_, err := Through(ctx, f.Gate, "followups.Send", token.Connection{}, func(bool) (struct{}, error) {
		if delay < 0 || delay > rotation.MaxDelay {
			return struct{}{}, fmt.Errorf("the delay %v is not between 0 and %v", delay, rotation.MaxDelay)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.waiting = append(f.waiting, followUp{request, time.Now().Add(delay)})
		f.Journal.Add(ctx, token.Connection{}, Queued{request, delay})
		return struct{}{}, nil
	})
	return err
}

// Take returns the requests whose time has come, earliest first, and forgets them.
func (f *FollowUps) Take() []rotation.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.SortStableFunc(f.waiting, func(a, b followUp) int { return a.at.Compare(b.at) })
	var due []rotation.Request
	for len(f.waiting) > 0 && !f.waiting[0].at.After(time.Now()) {
		due = append(due, f.waiting[0].request)
		f.waiting = f.waiting[1:]
	}
	return due
}

// Next is when the next request is to be delivered; zero: there is none.
func (f *FollowUps) Next() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	var next time.Time
	for _, w := range f.waiting {
		if next.IsZero() || w.at.Before(next) {
			next = w.at
		}
	}
	return next
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

// Notices returns what was told, in order.
func (n *Notifier) Notices() []rotation.Notice {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.notices)
}

// Log is a writer for what the program under test logs, answers and returns as
// errors, so that Check can search it for secrets. Safe for concurrent use.
type Log struct {
	mu   sync.Mutex
	text strings.Builder
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
