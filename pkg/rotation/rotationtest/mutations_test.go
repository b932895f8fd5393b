package rotationtest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// brokenStore names, to a second process of this test, the fault to run a suite on.
const brokenStore = "ROTATIONTEST_BROKEN_STORE"

// Each suite must fail on a store with any of these faults.
func TestEverySuiteCanFail(t *testing.T) {
	if name := os.Getenv(brokenStore); name != "" {
		broken[name](t)
		return
	}
	for name := range sorted(broken) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestEverySuiteCanFail$", "-test.failfast",
				"-test.timeout=1m")
			again.Env = append(os.Environ(), brokenStore+"="+name)
			out, err := again.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestEverySuiteCanFail/") {
				t.Errorf("the suite passed, or did not run: %v\n%s", err, out)
			}
		})
	}
}

// broken are the faults, each with the suite that is to find it.
var broken = map[string]func(*testing.T){
	"ledger: revisions are not compared": ledgerWith(func(l *Ledger) rotation.Ledger {
		return &oddLedger{Ledger: l, write: func(ctx context.Context, c rotation.Change) (string, error) {
			record, _, _ := l.Load(ctx, c.Record.Connection)
			c.Record.Revision = record.Revision
			return l.Write(ctx, c)
		}}
	}),
	"ledger: comparing and writing are two steps": ledgerWith(func(l *Ledger) rotation.Ledger {
		return &oddLedger{Ledger: l, write: func(ctx context.Context, c rotation.Change) (string, error) {
			record, _, err := l.Load(ctx, c.Record.Connection)
			if err != nil {
				return "", err
			}
			if record.Revision != c.Record.Revision {
				return "", rotation.ErrConflict
			}
			for range 100 { // more than there are racers
				runtime.Gosched()
				record, _, _ = l.Load(ctx, c.Record.Connection)
				c.Record.Revision = record.Revision
				if revision, err := l.Write(ctx, c); !errors.Is(err, rotation.ErrConflict) {
					return revision, err
				}
			}
			return "", rotation.ErrConflict
		}}
	}),
	"ledger: a refused write marks all the same": ledgerWith(func(l *Ledger) rotation.Ledger {
		return &oddLedger{Ledger: l, write: func(ctx context.Context, c rotation.Change) (string, error) {
			revision, err := l.Write(ctx, c)
			if errors.Is(err, rotation.ErrConflict) {
				for _, mark := range c.Mark {
					l.of(c.Record.Connection).mark(mark)
				}
			}
			return revision, err
		}}
	}),
	"ledger: a conflict has no name": ledgerWith(func(l *Ledger) rotation.Ledger {
		return &oddLedger{Ledger: l, write: func(ctx context.Context, c rotation.Change) (string, error) {
			revision, err := l.Write(ctx, c)
			if err != nil {
				err = errors.New("conflict")
			}
			return revision, err
		}}
	}),
	"ledger: a copy replaces": ledgerWith(func(l *Ledger) rotation.Ledger {
		return &oddLedger{Ledger: l, write: func(ctx context.Context, c rotation.Change) (string, error) {
			revision, err := l.Write(ctx, c)
			if err == nil {
				for _, m := range c.Copy {
					l.of(m.Connection).responses[m.Key] = decode[rotation.TokenResponse](encode(m))
				}
			}
			return revision, err
		}}
	}),
	"ledger: a mark of nothing is left out": ledgerMarking(func(l *Ledger, c rotation.Change) (rotation.Change, error) {
		c.Mark = slices.DeleteFunc(slices.Clone(c.Mark), func(m rotation.TokenResponse) bool {
			return !l.has(c.Record.Connection, m.Key)
		})
		return c, nil
	}),
	"ledger: a mark makes its response": ledgerMarking(func(l *Ledger, c rotation.Change) (rotation.Change, error) {
		for _, m := range c.Mark {
			if !l.has(c.Record.Connection, m.Key) {
				m.Connection = c.Record.Connection
				return c, l.SaveResponse(context.Background(), m)
			}
		}
		return c, nil
	}),
	"ledger: a mark of nothing is no conflict": ledgerMarking(func(l *Ledger, c rotation.Change) (rotation.Change, error) {
		for _, m := range c.Mark {
			if !l.has(c.Record.Connection, m.Key) {
				return c, errors.New("the response is not there")
			}
		}
		return c, nil
	}),
	"ledger: history is lost":      ledgerChanging(func(c *rotation.Change) { c.History = nil }),
	"ledger: nothing is buried":    ledgerChanging(func(c *rotation.Change) { c.Bury = nil }),
	"ledger: nothing is copied":    ledgerChanging(func(c *rotation.Change) { c.Copy = nil }),
	"ledger: nothing is marked":    ledgerChanging(func(c *rotation.Change) { c.Mark = nil }),
	"ledger: a field is forgotten": ledgerChanging(func(c *rotation.Change) { c.Record.SearchAt = time.Time{} }),
	"ledger: an old field is kept": ledgerChanging(func(c *rotation.Change) { c.Record.Stack = "stack" }),
	"ledger: times are whole seconds": ledgerChanging(func(c *rotation.Change) {
		c.Record.RotatedAt = c.Record.RotatedAt.Truncate(time.Second)
	}),
	"ledger: a context is ignored": ledgerWith(func(l *Ledger) rotation.Ledger { return &deafLedger{l} }),
	"ledger: a second response replaces": ledgerSaving(func(l *Ledger,
		m rotation.TokenResponse) {
		delete(l.of(m.Connection).responses, m.Key)
	}),
	"ledger: a response is cut at 64 KiB": ledgerSaving(func(_ *Ledger,
		m rotation.TokenResponse) {
		clear(m.Sealed[min(len(m.Sealed), 64<<10):])
	}),
	"ledger: due is in no order": ledgerDue(func(due []token.Connection) []token.Connection {
		slices.Reverse(due)
		return due
	}),
	"ledger: due is one page": ledgerDue(func(due []token.Connection) []token.Connection {
		return due[:min(100,
			len(due))]
	}),
	"ledger: due comes a second later": ledgerWith(func(l *Ledger) rotation.Ledger {
		return &oddLedger{Ledger: l,
			shift: -time.Second}
	}),
	"ledger: due comes a second early": ledgerWith(func(l *Ledger) rotation.Ledger {
		return &oddLedger{Ledger: l,
			shift: time.Second}
	}),
	"ledger: names match by their start": ledgerWith(func(l *Ledger) rotation.Ledger { return &prefixLedger{l} }),
	"ledger: the conflict is not me": func(t *testing.T) {
		TestLedgerRepeats(t, func(t *testing.T, transport http.RoundTripper) rotation.Ledger {
			server := &ledgerServer{} // a nil map of nonces cannot remember any
			return &remoteLedger{serve(t, transport, func(c call) (call, error) {
				server.nonces = map[token.Connection]string{}
				return server.answer(c)
			})}
		})
	},
	"ledger: every conflict is me": func(t *testing.T) {
		TestLedgerRepeats(t, func(t *testing.T, transport http.RoundTripper) rotation.Ledger {
			server := &ledgerServer{nonces: map[token.Connection]string{}}
			return &remoteLedger{serve(t, transport, func(c call) (call, error) {
				c.Nonce = "always the same"
				return server.answer(c)
			})}
		})
	},

	"secret store: Put takes AWSCURRENT": secretStoreWith(oddSecretStore{put: func(ctx context.Context, v *SecretStore,
		c token.Connection, id string, value token.Secret) error {
		return errors.Join(v.Put(ctx, c, id, value), v.RollBack(ctx, c, id))
	}}),
	"secret store: Put overwrites": secretStoreWith(oddSecretStore{put: func(ctx context.Context, v *SecretStore,
		c token.Connection, id string, value token.Secret) error {
		err := v.Put(ctx, c, id, value)
		if errors.Is(err, rotation.ErrVersionTaken) {
			v.secrets[c].version(id).Value = value
			return nil
		}
		return err
	}}),
	"secret store: a late Put takes AWSPENDING": secretStoreWith(oddSecretStore{put: func(ctx context.Context,
		v *SecretStore, c token.Connection, id string, value token.Secret) error {
		err := v.Put(ctx, c, id, value)
		if err == nil {
			v.secrets[c].labels[pending] = id
		}
		return err
	}}),
	"secret store: Put makes the secret": secretStoreWith(oddSecretStore{put: func(ctx context.Context, v *SecretStore,
		c token.Connection, id string, value token.Secret) error {
		err := v.Put(ctx, c, id, value)
		if errors.Is(err, rotation.ErrNoSecret) {
			return v.Create(ctx, c, id, value)
		}
		return err
	}}),
	"secret store: an error contains the value": secretStoreWith(oddSecretStore{put: func(ctx context.Context,
		v *SecretStore,
		c token.Connection, id string, value token.Secret) error {
		if err := v.Put(ctx, c, id, value); err != nil {
			return fmt.Errorf("putting %s: %w", value.Reveal(), err)
		}
		return nil
	}}),
	"secret store: Promote does not compare": secretStoreWith(oddSecretStore{promote: func(ctx context.Context,
		v *SecretStore, c token.Connection, id, _ string) error {
		return v.Promote(ctx, c, id, v.Label(c, current))
	}}),
	"secret store: Promote fails where the label is": secretStoreWith(oddSecretStore{promote: func(ctx context.Context,
		v *SecretStore, c token.Connection, id, replaces string) error {
		if v.Label(c, current) == id {
			return rotation.ErrNotCurrent
		}
		return v.Promote(ctx, c, id, replaces)
	}}),
	"secret store: versions without labels are hidden": secretStoreWith(
		oddSecretStore{versions: func(infos []rotation.VersionInfo) []rotation.VersionInfo {
			return slices.DeleteFunc(infos, func(i rotation.VersionInfo) bool { return len(i.Labels) == 0 })
		}}),

	"sealer: every installation has one key": func(t *testing.T) {
		TestSealer(t, func(*testing.T) (a, sameKeys, other rotation.Sealer) {
			s := NewSealer()
			return s, s, s
		})
	},
	"sealer: every process has its own key": func(t *testing.T) {
		TestSealer(t, func(*testing.T) (a, sameKeys, other rotation.Sealer) { return NewSealer(), NewSealer(), NewSealer() })
	},
}

func ledgerWith(fault func(*Ledger) rotation.Ledger) func(*testing.T) {
	return func(t *testing.T) { TestLedger(t, func(*testing.T) rotation.Ledger { return fault(&Ledger{}) }) }
}

func ledgerChanging(edit func(*rotation.Change)) func(*testing.T) {
	return ledgerWith(func(l *Ledger) rotation.Ledger {
		return &oddLedger{Ledger: l, write: func(ctx context.Context, c rotation.Change) (string, error) {
			edit(&c)
			return l.Write(ctx, c)
		}}
	})
}

// ledgerMarking edits changes with marks and the right revision, or refuses them.
func ledgerMarking(edit func(*Ledger, rotation.Change) (rotation.Change, error)) func(*testing.T) {
	return ledgerWith(func(l *Ledger) rotation.Ledger {
		return &oddLedger{Ledger: l, write: func(ctx context.Context, c rotation.Change) (string, error) {
			if record, _, _ := l.Load(ctx, c.Record.Connection); len(c.Mark) > 0 && record.Revision == c.Record.Revision {
				var err error
				if c, err = edit(l, c); err != nil {
					return "", err
				}
			}
			return l.Write(ctx, c)
		}}
	})
}

func (l *Ledger) has(c token.Connection, key rotation.ResponseKey) bool {
	_, found := l.of(c).responses[key]
	return found
}

func ledgerSaving(first func(*Ledger, rotation.TokenResponse)) func(*testing.T) {
	return ledgerWith(func(l *Ledger) rotation.Ledger { return &oddLedger{Ledger: l, save: first} })
}

func ledgerDue(edit func([]token.Connection) []token.Connection) func(*testing.T) {
	return ledgerWith(func(l *Ledger) rotation.Ledger { return &oddLedger{Ledger: l, due: edit} })
}

// oddLedger departs from a right one where a field is set.
type oddLedger struct {
	*Ledger
	write func(context.Context, rotation.Change) (string, error)
	save  func(*Ledger, rotation.TokenResponse)
	due   func([]token.Connection) []token.Connection
	shift time.Duration
}

func (l *oddLedger) Write(ctx context.Context, c rotation.Change) (string, error) {
	if l.write != nil {
		return l.write(ctx, c)
	}
	return l.Ledger.Write(ctx, c)
}

func (l *oddLedger) SaveResponse(ctx context.Context, m rotation.TokenResponse) error {
	if l.save != nil {
		m = deepCopy(m)
		l.save(l.Ledger, m)
	}
	return l.Ledger.SaveResponse(ctx, m)
}

func (l *oddLedger) Due(ctx context.Context, now time.Time) ([]token.Connection, error) {
	due, err := l.Ledger.Due(ctx, now.Add(l.shift))
	if l.due != nil {
		due = l.due(due)
	}
	return due, err
}

// deafLedger ignores that its context has ended.
type deafLedger struct{ *Ledger }

func (l *deafLedger) SaveResponse(ctx context.Context, m rotation.TokenResponse) error {
	return l.Ledger.SaveResponse(context.WithoutCancel(ctx), m)
}

// prefixLedger finds the responses of every connection with a name that begins like the requested one.
type prefixLedger struct{ *Ledger }

func (l *prefixLedger) Load(ctx context.Context, c token.Connection) (rotation.Record, []rotation.TokenResponse,
	error) {
	record, responses, err := l.Ledger.Load(ctx, c)
	for other := range l.tables {
		if other != c && strings.HasPrefix(other.String(), c.String()) {
			responses = append(responses, l.responsesOf(other)...)
		}
	}
	return record, responses, err
}

func secretStoreWith(odd oddSecretStore) func(*testing.T) {
	return func(t *testing.T) {
		TestSecretStore(t, func(*testing.T) rotation.SecretStore {
			v := odd
			v.SecretStore = &SecretStore{}
			return &v
		})
	}
}

// oddSecretStore departs from a right one where a field is set.
type oddSecretStore struct {
	*SecretStore
	put      func(context.Context, *SecretStore, token.Connection, string, token.Secret) error
	promote  func(context.Context, *SecretStore, token.Connection, string, string) error
	versions func([]rotation.VersionInfo) []rotation.VersionInfo
}

func (v *oddSecretStore) Put(ctx context.Context, c token.Connection, id string, value token.Secret) error {
	if v.put != nil {
		return v.put(ctx, v.SecretStore, c, id, value)
	}
	return v.SecretStore.Put(ctx, c, id, value)
}

func (v *oddSecretStore) Promote(ctx context.Context, c token.Connection, id, replaces string) error {
	if v.promote != nil {
		return v.promote(ctx, v.SecretStore, c, id, replaces)
	}
	return v.SecretStore.Promote(ctx, c, id, replaces)
}

func (v *oddSecretStore) Versions(ctx context.Context, c token.Connection) ([]rotation.VersionInfo, error) {
	infos, err := v.SecretStore.Versions(ctx, c)
	if v.versions != nil {
		infos = v.versions(infos)
	}
	return infos, err
}
