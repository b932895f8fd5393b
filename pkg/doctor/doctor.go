// Package doctor examines an installation: its parts, whether its schedule runs, and
// whether each of its access tokens works. It changes nothing and spends no refresh
// token.
package doctor

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Level says how severe a finding is, and who can act on it.
type Level string

const (
	OK      Level = "ok"
	Warning Level = "warning" // works, but should be corrected
	Later   Level = "later"   // not known now, or recovers automatically
	Consent Level = "consent" // a person must consent
	Problem Level = "problem" // an operator must act
)

// Finding is the result of one check.
type Finding struct {
	Check   string `json:"check"`             // "keys", "app", "token", ...
	Subject string `json:"subject,omitempty"` // a connection, an environment, a store
	Level   Level  `json:"level"`
	Detail  string `json:"detail"`           // what was found
	Remedy  string `json:"remedy,omitempty"` // what to do; set unless Level is OK
}

// Check examines one thing that only some installations have.
type Check func(ctx context.Context) []Finding

// Issuer is the part of procore.Issuer that the doctor uses.
type Issuer interface {
	CheckCredentials(ctx context.Context, app rotation.Application) error
	Probe(ctx context.Context, app rotation.Application, access token.Secret, company string) procore.Probe
	ServerTime(ctx context.Context, app rotation.Application) (time.Time, error)
}

// Records lists the ledger's rows.
type Records interface {
	List(ctx context.Context) ([]rotation.Record, error)
}

// Config says what to examine. Everything but Extra, FollowUps and PublicURL is
// required.
type Config struct {
	Records      Records
	SecretStore  rotation.SecretStore
	Sealer       rotation.Sealer
	Applications rotation.Applications
	// Environments lists those with app credentials; nil: the store has no such list.
	Environments func(context.Context) ([]string, error)
	Issuer       Issuer
	Settings     rotation.Settings
	// FollowUps reports whether there is a queue, or timers, besides the schedule.
	FollowUps bool
	PublicURL string
	Extra     []Check
	Now       func() time.Time
}

// Doctor examines one installation. It is safe for concurrent use.
type Doctor struct {
	Config
	web *http.Client
}

// New makes no call.
func New(cfg Config) *Doctor {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Doctor{cfg, &http.Client{Timeout: patience, CheckRedirect: func(*http.Request,
		[]*http.Request) error {
		return http.ErrUseLastResponse
	}}}
}

// patience bounds each call.
const patience = 15 * time.Second

// Examine makes every check. begin is called with the number of pieces of work, step
// after each piece; no two of these calls overlap. The findings are ordered by check,
// those about connections last.
func (d *Doctor) Examine(ctx context.Context, begin func(pieces int), step func()) []Finding {
	records, err := d.records(ctx)
	general := append([]Check{d.settings, d.keys, func(context.Context) []Finding { return d.schedule(records, err) }},
		d.Extra...)
	environments, apps, appFindings := d.applications(ctx, records)
	for _, environment := range environments {
		general = append(general, func(ctx context.Context) []Finding { return d.application(ctx, apps[environment]) })
	}
	for _, r := range records {
		if r.Status != rotation.Disconnected {
			general = append(general, func(ctx context.Context) []Finding { return d.connection(ctx, r, apps) })
		}
	}
	begin(len(general))
	results := make([][]Finding, len(general))
	done := make(chan struct{})
	var group errgroup.Group
	group.SetLimit(d.Settings.Concurrency)
	go func() {
		for i, check := range general {
			group.Go(func() error {
				within, cancel := context.WithTimeout(ctx, 4*patience)
				defer cancel()
				results[i] = check(within)
				done <- struct{}{}
				return nil
			})
		}
	}()
	for range general {
		<-done
		step()
	}
	return append(slices.Concat(results[:3]...), slices.Concat(appFindings, slices.Concat(results[3:]...))...)
}

func (d *Doctor) records(ctx context.Context) ([]rotation.Record, error) {
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return d.Records.List(within)
}

// Worst returns the most severe level of the findings: OK if there are none.
func Worst(findings []Finding) Level {
	worst := OK
	for _, f := range findings {
		if severity[f.Level] > severity[worst] {
			worst = f.Level
		}
	}
	return worst
}

var severity = map[Level]int{OK: 0, Warning: 1, Later: 2, Consent: 3, Problem: 4}

// Cause is what one or more findings have in common: the check, the level and what to do.
type Cause struct {
	Check    string
	Level    Level
	Remedy   string    // for several subjects, with "ENV/NAME" in place of a connection
	Findings []Finding // at least one
}

// Causes groups the findings by their cause, the most severe last, and otherwise in their
// order.
func Causes(findings []Finding) []Cause {
	type key struct {
		check  string
		level  Level
		remedy string
	}
	var causes []Cause
	at := map[key]int{}
	for _, f := range findings {
		k := key{f.Check, f.Level, f.Remedy}
		if strings.Contains(f.Subject, "/") {
			k.remedy = strings.ReplaceAll(f.Remedy, f.Subject, "ENV/NAME")
		}
		n, there := at[k]
		if !there {
			n, at[k] = len(causes), len(causes)
			causes = append(causes, Cause{f.Check, f.Level, f.Remedy, nil})
		}
		causes[n].Findings = append(causes[n].Findings, f)
		if len(causes[n].Findings) > 1 {
			causes[n].Remedy = k.remedy
		}
	}
	slices.SortStableFunc(causes, func(a, b Cause) int { return cmp.Compare(severity[a.Level], severity[b.Level]) })
	return causes
}
