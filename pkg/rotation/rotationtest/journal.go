package rotationtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Journal is the ordered list of everything that happened to the fakes of a world. Its text
// is a trace without secrets. A nil Journal records nothing.
type Journal struct {
	mu      sync.Mutex
	entries []Entry
}

// Entry is one effect.
type Entry struct {
	At         time.Time
	Skew       time.Duration // of the actor's clock; see OffBy
	Actor      string
	Connection token.Connection // zero for the issuer, which knows no connections
	Effect     fmt.Stringer     // one of the types below
}

// The effects of the stores.
type (
	// Wrote is a successful Ledger.Write.
	Wrote struct {
		Change rotation.Change
		text   []byte // of the record, as it is stored
	}
	// Purged is a secret that a person deleted permanently.
	Purged struct{}
	// Restored is a row as a backup had it.
	Restored struct{ Record rotation.Record }
	// Responded is a Ledger.SaveResponse that found nothing there.
	Responded struct {
		TokenResponse rotation.TokenResponse
		text          []byte // as it is stored
	}
	// Stored is a new version in the secret store.
	Stored struct{ Version rotation.Version }
	// Moved is a label that moved from one version to another; either may be empty.
	Moved struct {
		Label, From, To string
		ByHand          bool
	}
	// Full is a put that was refused because the secret has no room for a version.
	Full struct{ ID string }
	// Queued is a follow-up that was requested.
	Queued struct {
		Request rotation.Request
		Delay   time.Duration
	}
	// Acted is an action of a person.
	Acted struct{ What string }
	// Noticed is a notice to people.
	Noticed struct{ Notice rotation.Notice }
)

// The effects at the issuer. Pairs and grants are named by the fingerprint of
// their refresh token or code, presentations by a number.
type (
	// Presented is a grant on its way to the issuer.
	Presented struct {
		N           int
		What        token.Fingerprint
		Code        bool
		Environment string
		Scheduled   bool // by a run that no person requested
		Run         *Run // nil: a run without a time limit
	}
	// Granted is the issuer's decision to answer a presentation with a pair.
	Granted struct {
		N    int
		What token.Fingerprint // what was presented
		Pair token.Fingerprint // the new pair; empty without rotation
	}
	// Answered is the answer that a caller received. A caller that crashed has none.
	Answered struct {
		N     int
		What  token.Fingerprint
		Class rotation.Class
		Dead  bool // the issuer no longer takes the grant
	}
	// Used is a request with a pair's access token.
	Used struct {
		Pair     token.Fingerprint
		Accepted bool
	}
	// Ended is a pair that stopped working.
	Ended struct {
		Pair token.Fingerprint
		Why  string
	}
)

func (e Wrote) String() string {
	r := e.Change.Record
	text := fmt.Sprintf("wrote (%d,%d) %s", r.Epoch, r.Generation, r.Status)
	if r.Attempt != nil {
		text += fmt.Sprintf(", attempt on %s until %s", short(r.Attempt.Fingerprint), clock(r.Attempt.Until))
	}
	for _, f := range r.Failures {
		text += fmt.Sprintf(", %s failed: %s", f.Step, f.Class)
	}
	for _, m := range e.Change.Mark {
		text += fmt.Sprintf(", response (%d,%d) %s", m.Key.Epoch, m.Key.Generation, m.State)
	}
	for _, k := range e.Change.Bury {
		text += fmt.Sprintf(", response (%d,%d) buried", k.Epoch, k.Generation)
	}
	for _, h := range e.Change.History {
		text += ", history: " + h.Kind
	}
	if !r.DueAt.IsZero() {
		text += ", due " + clock(r.DueAt)
	}
	return text
}

func (e Restored) String() string {
	return fmt.Sprintf("restored (%d,%d) %s", e.Record.Epoch, e.Record.Generation, e.Record.Status)
}

func (e Purged) String() string { return "purged" }

func (e Responded) String() string {
	return fmt.Sprintf("saved (%d,%d) as %s from %s, %s", e.TokenResponse.Key.Epoch, e.TokenResponse.Key.Generation,
		e.TokenResponse.State,
		e.TokenResponse.Source, short(e.TokenResponse.Parent))
}
func (e Stored) String() string { return "stored version " + short(e.Version.ID) }
func (e Moved) String() string {
	by := ""
	if e.ByHand {
		by = " by hand"
	}
	return fmt.Sprintf("moved %s from %s to %s%s", e.Label, short(e.From), short(e.To), by)
}
func (e Full) String() string   { return "no room for version " + short(e.ID) }
func (e Queued) String() string { return fmt.Sprintf("queued %s in %v", e.Request.Op, e.Delay) }
func (e Noticed) String() string {
	return "noticed " + e.Notice.Kind
}
func (e Acted) String() string     { return "by hand: " + e.What }
func (e Presented) String() string { return fmt.Sprintf("presented #%d: %s", e.N, short(e.What)) }
func (e Granted) String() string {
	return fmt.Sprintf("granted #%d: %s for %s", e.N, short(e.Pair), short(e.What))
}
func (e Answered) String() string { return fmt.Sprintf("answered #%d: %s", e.N, e.Class) }
func (e Used) String() string     { return fmt.Sprintf("used %s: accepted %t", short(e.Pair), e.Accepted) }
func (e Ended) String() string    { return fmt.Sprintf("ended %s: %s", short(e.Pair), e.Why) }

// Add appends an effect of the actor of ctx.
func (j *Journal) Add(ctx context.Context, c token.Connection, effect fmt.Stringer) {
	if j == nil {
		return
	}
	run := processOf(ctx)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, Entry{time.Now(), run.skew, run.name, c, effect})
}

// Entries returns what has happened so far, in order. Do not change it.
func (j *Journal) Entries() []Entry {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clip(j.entries)
}

// String is the trace, one effect a line.
func (j *Journal) String() string { return trace(j.Entries()) }

// Before is the trace of the time d before v and of v itself, of its connection only. It
// takes an effect of the issuer for one of the connection of which its actor had the last
// effect, so it is for processes that handle one connection at a time.
func (j *Journal) Before(v *Violation, d time.Duration) string {
	of := map[string]token.Connection{} // by actor
	type placed struct {
		Entry
		of token.Connection
	}
	var recent []placed
	var about token.Connection
	for _, e := range j.Entries() {
		if !e.Connection.IsZero() {
			of[e.Actor] = e.Connection
		}
		if e.At.After(v.Entry.At.Add(-d)) && !e.At.After(v.Entry.At) {
			recent = append(recent, placed{e, of[e.Actor]})
		}
		if e.At.Equal(v.Entry.At) && e.Actor == v.Entry.Actor && e.Effect.String() == v.Entry.Effect.String() {
			about = of[e.Actor]
		}
	}
	var entries []Entry
	for _, e := range recent {
		if e.of == about {
			entries = append(entries, e.Entry)
		}
	}
	return trace(entries)
}

func trace(entries []Entry) string {
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&b, "%s %-10s ", clock(e.At), e.Actor)
		if !e.Connection.IsZero() {
			fmt.Fprintf(&b, "%s ", e.Connection)
		}
		fmt.Fprintln(&b, e.Effect)
	}
	return b.String()
}

func clock(t time.Time) string { return t.UTC().Format("2 15:04:05.000") }

// short is the beginning of a fingerprint or id, enough to identify it in a trace.
func short[S ~string](text S) string {
	if text == "" {
		return "nothing"
	}
	return string(text[:min(8, len(text))])
}
