// Package fsck looks for damage in what an installation has stored: ledger rows,
// saved responses, histories and secrets. It compares them with each other and with
// the rules of package rotation. It only reads.
//
// A running installation changes while it is read. So whatever is found is looked at
// again after a pause, and only what is found twice counts. What the engine itself
// will put in order within a sweep is no damage.
package fsck

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Finding is one piece of damage.
type Finding struct {
	Connection token.Connection `json:"connection,omitzero"` // zero: the installation as a whole
	Kind       Kind             `json:"kind"`
	Detail     string           `json:"detail"` // what was found; nothing secret
	Remedy     string           `json:"remedy"` // what to do
}

// NotMade says of a check that it was not made, and why.
type NotMade struct {
	Check       string `json:"check"`
	Connections int    `json:"connections"` // of how many
	Reason      string `json:"reason"`
}

// Report is the result of a check.
type Report struct {
	Connections int       `json:"connections"` // checked
	Findings    []Finding `json:"findings"`
	NotMade     []NotMade `json:"not_made"`
}

// Ledger is what is read of a ledger. Nothing found is damage only if Load is
// strongly consistent.
type Ledger interface {
	// List returns every record.
	List(ctx context.Context) ([]rotation.Record, error)
	Load(ctx context.Context, c token.Connection) (rotation.Record, []rotation.TokenResponse, error)
	// History returns the newest events of c, newest first, at most limit.
	History(ctx context.Context, c token.Connection, limit int) ([]rotation.Event, error)
}

// Secrets is what is read of a secret store; see rotation.SecretStore.
type Secrets interface {
	Current(ctx context.Context, c token.Connection) (rotation.Version, error)
	Version(ctx context.Context, c token.Connection, id string) (rotation.Version, error)
	Versions(ctx context.Context, c token.Connection) ([]rotation.VersionInfo, error)
}

// Lister is what a Secrets may be besides. Where it is not, UnknownSecret is not looked for.
type Lister interface {
	// Connections lists the connections that have a secret.
	Connections(ctx context.Context) ([]token.Connection, error)
}

// Config says what to check. Sealer, Pause, Begin and Now may be left out.
type Config struct {
	Ledger  Ledger
	Secrets Secrets
	// Sealer opens responses. Whoever may not use it gets all checks that need no opening.
	Sealer rotation.Sealer
	// Issuer reads what was opened. Only Parse is called, which asks nobody.
	Issuer   rotation.Issuer
	Settings rotation.Settings
	// Pause is how long after the first look the second one comes. Labels may be read
	// stale for a while.
	Pause time.Duration
	// Begin is told how many connections there are to be checked; step is called after
	// each, never twice at a time.
	Begin func(connections int) (step func())
	Now   func() time.Time
}

// clockTolerance is what may lie between the clocks of those who wrote and of who checks.
const clockTolerance = 10 * time.Minute

// Check checks the connections in only, or all if there are none. What is found comes by
// connection. The error says what could not be read; the report then has the rest.
func Check(ctx context.Context, cfg Config, only ...token.Connection) (Report, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	k := &checker{Config: cfg, missed: map[string]*NotMade{}}
	if cfg.Sealer != nil {
		k.opener = rotation.NewOpener(cfg.Sealer, cfg.Issuer)
	}
	var err error
	if k.records, err = cfg.Ledger.List(ctx); err != nil {
		return Report{}, fmt.Errorf("listing the connections: %w", err)
	}
	connections := only
	if len(connections) == 0 {
		for _, r := range k.records {
			connections = append(connections, r.Connection)
		}
	}
	findings, err := k.look(ctx, connections)
	general, listing := k.strangers(ctx, only)
	err = errors.Join(err, listing)
	findings = append(findings, general...)
	if len(findings) > 0 && err == nil {
		if findings, err = k.again(ctx, only, findings); err != nil {
			return Report{}, err
		}
	}
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Compare(a.Connection.String(), b.Connection.String())
	})
	report := Report{Connections: len(connections), Findings: append([]Finding{}, findings...), NotMade: []NotMade{}}
	for _, m := range k.missed {
		report.NotMade = append(report.NotMade, *m)
	}
	return report, err
}

// again looks at what was found a second time and keeps what is still so.
func (k *checker) again(ctx context.Context, only []token.Connection, first []Finding) (kept []Finding, err error) {
	select {
	case <-time.After(k.Pause):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if k.records, err = k.Ledger.List(ctx); err != nil {
		return nil, fmt.Errorf("listing the connections: %w", err)
	}
	var concerned []token.Connection
	for _, f := range first {
		known := slices.ContainsFunc(k.records, func(r rotation.Record) bool { return r.Connection == f.Connection })
		if known && !slices.Contains(concerned, f.Connection) {
			concerned = append(concerned, f.Connection)
		}
	}
	k.Begin = nil
	k.missed = map[string]*NotMade{}
	second, err := k.look(ctx, concerned)
	if err != nil {
		return nil, err
	}
	general, err := k.strangers(ctx, only)
	for _, f := range append(second, general...) {
		same := func(g Finding) bool { return f.Connection == g.Connection && f.Kind == g.Kind }
		if slices.ContainsFunc(first, same) {
			kept = append(kept, f)
		}
	}
	return kept, err
}

// checker is one check.
type checker struct {
	Config
	opener  *rotation.Opener // nil: nothing can be opened
	records []rotation.Record

	mu     sync.Mutex
	missed map[string]*NotMade
}

// look examines each connection.
func (k *checker) look(ctx context.Context, connections []token.Connection) ([]Finding, error) {
	step := func() {}
	if k.Begin != nil {
		step = k.Begin(len(connections))
	}
	results := make([][]Finding, len(connections))
	errs := make([]error, len(connections))
	var group errgroup.Group
	group.SetLimit(max(1, k.Settings.Concurrency))
	for i, c := range connections {
		group.Go(func() error {
			results[i], errs[i] = k.connection(ctx, c)
			k.mu.Lock()
			defer k.mu.Unlock()
			step()
			return nil
		})
	}
	_ = group.Wait()
	return slices.Concat(results...), errors.Join(errs...)
}

// ErrUnknown: there is no such connection.
var ErrUnknown = errors.New("no such connection")

// patience bounds the reading of one connection.
const patience = 2 * time.Minute

func (k *checker) connection(ctx context.Context, c token.Connection) ([]Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	rec, responses, err := k.Ledger.Load(ctx, c)
	switch {
	case err != nil:
		return nil, fmt.Errorf("loading %s: %w", c, err)
	case rec.Revision == "":
		return nil, fmt.Errorf("%s: %w", c, ErrUnknown)
	}
	x := &examination{checker: k, rec: rec, responses: responses, now: k.Now(),
		opened: map[rotation.ResponseKey]rotation.Opened{}}
	if err := x.all(ctx); err != nil {
		return nil, fmt.Errorf("checking %s: %w", c, err)
	}
	return x.findings, nil
}

// strangers looks for secrets that no row knows.
func (k *checker) strangers(ctx context.Context, only []token.Connection) (findings []Finding, err error) {
	lister, can := k.Secrets.(Lister)
	if !can || len(only) > 0 {
		return nil, nil
	}
	connections, err := lister.Connections(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing the secrets: %w", err)
	}
	for _, c := range connections {
		if !slices.ContainsFunc(k.records, func(r rotation.Record) bool { return r.Connection == c }) {
			findings = append(findings, newFinding(c, UnknownSecret, "there is a secret of %s and no row in the ledger", c))
		}
	}
	return findings, nil
}

// notMade notes that a check was not made for one connection.
func (k *checker) notMade(check, reason string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.missed[check] == nil {
		k.missed[check] = &NotMade{Check: check, Reason: reason}
	}
	k.missed[check].Connections++
}

// examination is that of one connection.
type examination struct {
	*checker
	rec       rotation.Record
	responses []rotation.TokenResponse
	events    []rotation.Event // newest first
	now       time.Time
	opened    map[rotation.ResponseKey]rotation.Opened
	damaged   []rotation.ResponseKey // responses that are damage by themselves
	closed    string                 // why responses could not be opened
	findings  []Finding
}

// all makes every check. A row of nobody's is not compared with anything.
func (x *examination) all(ctx context.Context) error {
	if x.foreign() {
		return nil
	}
	var err error
	if x.events, err = x.Ledger.History(ctx, x.rec.Connection, wholeHistory); err != nil {
		return fmt.Errorf("reading the history: %w", err)
	}
	if err := x.answers(ctx); err != nil {
		return err
	}
	x.row()
	x.due()
	x.others()
	x.history()
	if err := x.secret(ctx); err != nil {
		return err
	}
	if x.closed != "" {
		x.notMade("opening", x.closed)
	}
	return nil
}

// found notes damage. One kind is noted once for each thing it is about.
func (x *examination) found(kind Kind, format string, args ...any) {
	f := newFinding(x.rec.Connection, kind, format, args...)
	if !slices.Contains(x.findings, f) {
		x.findings = append(x.findings, f)
	}
}

// has reports whether damage of that kind was found.
func (x *examination) has(kind Kind) bool {
	return slices.ContainsFunc(x.findings, func(f Finding) bool { return f.Kind == kind })
}

func newFinding(c token.Connection, kind Kind, format string, args ...any) Finding {
	return Finding{c, kind, fmt.Sprintf(format, args...), remedy(kind, c)}
}

// slack is how long after its time something may be done with nothing being wrong.
func (x *examination) slack() time.Duration {
	s := x.Settings
	return s.Cadence + s.Lease + s.Quiet + clockTolerance
}

// past and ahead compare a time with now, allowing for another clock.
func (x *examination) past(t time.Time) bool { return t.Add(x.slack()).Before(x.now) }

func (x *examination) ahead(t time.Time, allowed time.Duration) bool {
	return t.After(x.now.Add(allowed + clockTolerance))
}

// stamp shows a time.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// name shows the key of a response.
func name(k rotation.ResponseKey) string {
	return fmt.Sprintf("%d#%d#%s", k.Epoch, k.Generation, k.Attempt)
}

func later(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }
