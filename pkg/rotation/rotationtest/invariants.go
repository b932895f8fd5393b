package rotationtest

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// The invariants of the protocol, and the functions that assert them. Those marked with *
// hold only at rest.
//
//	I1, I2    a refresh token is presented once at a time,       presentedOnce
//	          and again only where that is allowed
//	I3        nothing saved is lost                              nothingSavedIsLost*
//	I4        no consent is requested without need               consentIsNeeded, noConsentIsAskedFor*
//	I5        (epoch, generation) grows, with one decided pair   growsOnly
//	          each
//	I6        AWSCURRENT never goes back; at rest it shows what  neverGoesBack, secretStoreShowsLedger*
//	          the ledger decided
//	I7        an answer is saved before anything else, whatever  answersAreSaved, answersCanBeSaved,
//	          happened to attempt, epoch and caller              callersDoNotMatter, budgetsAreKept
//	I8        no access token is used before its pair is saved   savedBeforeUse
//	I9        no saved pair stays valid after its time           oldEpochIsDead*, nothingSavedLivesOn*
//	I10       readers see whole, decided documents of their      readersSeeWhole
//	          connection
//	I11       connections do not mix                             connectionsDoNotMix
//	I12       a code is presented once; states and invitations:  codesAreShownOnce
//	          package invitationstest
//	I13       no secret is where it can be read                  disclosesNothing
//	I14, I16  after three sweeps all is at rest, and another     settle and idle of package rotation's tests,
//	          one does nothing                                   Calls, appsAreLeftAlone
//	I15       calls have deadlines; loops end: the run of a      callsAreBounded
//	          Driver has a bound
//	I17       people are notified                                alarmsRaised*
//	I18       the history is complete                            historyIsComplete
//	I19       a repair takes effect at once                      CheckRepaired (after the first run)
//	I20       what a text tells people to do works               package rotation's tests

// Check returns the invariants that the journal of a harness breaks. The journal keeps
// everything, so one check at the end of a run covers every step of it.
func Check(b *Harness) error {
	return errors.Join(
		presentedOnce(b),       // I1, I2
		growsOnly(b),           // I5
		neverGoesBack(b),       // I6
		consentIsNeeded(b),     // I4
		answersAreSaved(b),     // I7
		answersCanBeSaved(b),   // I7
		callersDoNotMatter(b),  // I7
		budgetsAreKept(b),      // I7
		savedBeforeUse(b),      // I8
		readersSeeWhole(b),     // I10
		connectionsDoNotMix(b), // I11
		codesAreShownOnce(b),   // I12
		disclosesNothing(b),    // I13
		appsAreLeftAlone(b),    // I14
		callsAreBounded(b),     // I15
		historyIsComplete(b),   // I18
	)
}

// CheckAtRest is Check and the invariants that must also hold at rest.
func CheckAtRest(b *Harness) error {
	errs := []error{Check(b), alarmsRaised(b)} // I17
	for _, record := range b.Ledger.records() {
		saved := savedPairs(b, record.Connection)
		errs = append(errs,
			nothingSavedIsLost(b, record, saved),  // I3
			noConsentIsAskedFor(b, record),        // I4
			secretStoreShowsLedger(b, record),     // I6
			oldEpochIsDead(b, record),             // I9
			nothingSavedLivesOn(b, record, saved), // I9
		)
	}
	return errors.Join(errs...)
}

// Violation is an invariant that does not hold at an entry of the journal.
type Violation struct {
	Invariant string
	Entry     Entry
	What      string
}

func (v *Violation) Error() string {
	return fmt.Sprintf("%s is broken at %s by %s: %s", v.Invariant, clock(v.Entry.At), v.Entry.Actor, v.What)
}

func violated(invariant string, e Entry, format string, args ...any) error {
	return &Violation{invariant, e, fmt.Sprintf(format, args...)}
}

// position orders pairs: an epoch, and a generation within it.
type position struct{ epoch, generation int64 }

func (p position) before(q position) bool {
	return p.epoch < q.epoch || p.epoch == q.epoch && p.generation < q.generation
}

func positionOf(r rotation.Record) position { return position{r.Epoch, r.Generation} }

// growsOnly is I5: the position of the row never falls, and each position has one decided
// pair.
func growsOnly(b *Harness) error {
	type place struct {
		connection token.Connection
		at         position
	}
	highest := map[token.Connection]position{}
	decided := map[place]rotation.ResponseKey{}
	for _, e := range b.Journal.Entries() {
		if restored, ok := e.Effect.(Restored); ok {
			highest[e.Connection] = positionOf(restored.Record)
		}
		wrote, ok := e.Effect.(Wrote)
		if !ok {
			continue
		}
		record := wrote.Change.Record
		now := positionOf(record)
		if now.before(highest[e.Connection]) {
			return violated("I5", e, "%s falls from %v to %v", e.Connection, highest[e.Connection], now)
		}
		highest[e.Connection] = now
		if record.Current == nil {
			continue
		}
		here := place{e.Connection, now}
		if other, found := decided[here]; found && other != record.Current.Response {
			return violated("I5", e, "%s has two decided pairs at %v", e.Connection, now)
		}
		decided[here] = record.Current.Response
	}
	return nil
}

// neverGoesBack is the part of I6 that holds at any time: AWSCURRENT only goes up, unless a
// person moves it by hand.
func neverGoesBack(b *Harness) error {
	type place struct {
		connection token.Connection
		id         string
	}
	positions := map[place]position{}
	highest := map[token.Connection]position{}
	for _, e := range b.Journal.Entries() {
		switch effect := e.Effect.(type) {
		case Stored:
			if doc, err := token.ParseDocument(effect.Version.Value); err == nil {
				positions[place{e.Connection, effect.Version.ID}] = position{doc.Epoch, doc.Generation}
			}
		case Moved:
			to, known := positions[place{e.Connection, effect.To}]
			if effect.Label != current || effect.ByHand || !known {
				continue
			}
			if to.before(highest[e.Connection]) {
				return violated("I6", e, "AWSCURRENT of %s goes back from %v to %v", e.Connection, highest[e.Connection], to)
			}
			highest[e.Connection] = to
		}
	}
	return nil
}

// secretStoreShowsLedger is the part of I6 that holds at rest.
func secretStoreShowsLedger(b *Harness, r rotation.Record) error {
	if r.Status != rotation.Active || r.Current == nil || r.Current.VersionID == "" {
		return nil
	}
	if shown := b.SecretStore.Label(r.Connection, current); shown != r.Current.VersionID ||
		r.Published != r.Current.VersionID {
		return fmt.Errorf("I6 is broken at rest: of %s the ledger decided version %s, noted %s as published, "+
			"and the secret store shows %s",
			r.Connection, short(r.Current.VersionID), short(r.Published), short(shown))
	}
	return nil
}

// records and responsesOf read the ledger without passing a gate.
func (l *Ledger) records() []rotation.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	var records []rotation.Record
	for _, c := range slices.SortedFunc(maps.Keys(l.tables), compareConnections) {
		if row := l.tables[c]; row.record.Revision != "" {
			records = append(records, deepCopy(row.record))
		}
	}
	return records
}

func (l *Ledger) responsesOf(c token.Connection) []rotation.TokenResponse {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of(c).liveResponses()
}
