// Package fsck finds damage in the stored data of an installation: ledger rows, saved
// responses, histories and secrets. It compares them with each other and with the
// rules of package rotation. It only reads.
//
// A running installation changes while it is read. So fsck checks each finding again
// after a pause and reports it only if it is found both times. A state that the engine
// itself corrects within a sweep is not damage.
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

// NotMade names a check that was not made, and the reason.
type NotMade struct {
	Check       string `json:"check"`
	Connections int    `json:"connections"` // how many it concerns
	Reason      string `json:"reason"`
}

// Report is the result of a check.
type Report struct {
	Connections int       `json:"connections"` // checked
	Findings    []Finding `json:"findings"`
	NotMade     []NotMade `json:"not_made"`
}

// Ledger is the part of a ledger that fsck reads. Findings are reliable only if Load is
// strongly consistent.
type Ledger interface {
	// List returns every record.
	List(ctx context.Context) ([]rotation.Record, error)
	Load(ctx context.Context, c token.Connection) (rotation.Record, []rotation.TokenResponse, error)
	// History returns the newest events of c, newest first, at most limit.
	History(ctx context.Context, c token.Connection, limit int) ([]rotation.Event, error)
}

// Secrets is the part of a secret store that fsck reads; see rotation.SecretStore.
type Secrets interface {
	Current(ctx context.Context, c token.Connection) (rotation.Version, error)
	Version(ctx context.Context, c token.Connection, id string) (rotation.Version, error)
	Versions(ctx context.Context, c token.Connection) ([]rotation.VersionInfo, error)
}

// Lister is an optional interface of a Secrets. Without it, UnknownSecret is not checked.
type Lister interface {
	// Connections lists the connections that have a secret.
	Connections(ctx context.Context) ([]token.Connection, error)
}

// Config says what to check. Sealer, Pause, Begin and Now are optional.
type Config struct {
	Ledger  Ledger
	Secrets Secrets
	// Sealer opens responses. Without it, or without the permission to use it, only the
	// checks that open nothing are made.
	Sealer rotation.Sealer
	// Issuer parses opened responses. Only Parse is called, which makes no request.
	Issuer   rotation.Issuer
	Settings rotation.Settings
	// Pause is the time between the first and the second check. A label that was just
	// moved may be read as it was before for a while.
	Pause time.Duration
	// Begin is called with the number of connections to check; step is called after
	// each. Calls of step do not overlap.
	Begin func(connections int) (step func())
	Now   func() time.Time
}

// clockTolerance is the accepted difference between the clocks of the writers and of fsck.
const clockTolerance = 10 * time.Minute

// Check checks the connections in only, or all if only is empty. The findings are ordered by
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
	findings, err := k.examine(ctx, connections)
	general, listing := k.unknownSecrets(ctx, only)
	err = errors.Join(err, listing)
	findings = append(findings, general...)
	if len(findings) > 0 && err == nil {
		if findings, err = k.confirm(ctx, only, findings); err != nil {
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

// confirm checks the findings a second time and keeps those that are found again.
func (k *checker) confirm(ctx context.Context, only []token.Connection, first []Finding) (kept []Finding, err error) {
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
	second, err := k.examine(ctx, concerned)
	if err != nil {
		return nil, err
	}
	general, err := k.unknownSecrets(ctx, only)
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

// examine examines each connection.
func (k *checker) examine(ctx context.Context, connections []token.Connection) ([]Finding, error) {
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

// unknownSecrets finds secrets without a row in the ledger.
func (k *checker) unknownSecrets(ctx context.Context, only []token.Connection) (findings []Finding, err error) {
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
			findings = append(findings, newFinding(c, UnknownSecret, "there is a secret of %s but no row in the ledger", c))
		}
	}
	return findings, nil
}

// notMade records that a check was not made for one connection.
func (k *checker) notMade(check, reason string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.missed[check] == nil {
		k.missed[check] = &NotMade{Check: check, Reason: reason}
	}
	k.missed[check].Connections++
}

// examination is the check of one connection.
type examination struct {
	*checker
	rec       rotation.Record
	responses []rotation.TokenResponse
	events    []rotation.Event // newest first
	now       time.Time
	opened    map[rotation.ResponseKey]rotation.Opened
	damaged   []rotation.ResponseKey // responses that are damaged themselves
	closed    string                 // why responses could not be opened
	findings  []Finding
}

// all makes every check. A row that foreign reports is not compared with anything.
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

// found records a finding. Equal findings are recorded once.
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

// slack is how late an action may be without being damage.
func (x *examination) slack() time.Duration {
	s := x.Settings
	return s.Cadence + s.Lease + s.Quiet + clockTolerance
}

// past and ahead compare a time with now, with room for a differing clock.
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
