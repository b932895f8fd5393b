package rotationtest

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// The invariants of the protocol, and what asserts them. "Rest": only when
// faults have stopped and enough sweeps have passed.
//
//	I1, I2    a refresh token is presented once at a time, and again only where that may be   presentedOnce
//	I3        nothing saved is lost                                                           nothingSavedIsLost (rest)
//	I4        no consent is asked for without need                                            consentIsNeeded,
// noConsentIsAskedFor (rest)
//	I5        (epoch, generation) grows, each with one decided pair                           growsOnly
//	I6        AWSCURRENT never goes back; at rest it shows what the ledger decided            neverGoesBack,
// secretStoreShowsLedger (rest)
//	I7        an answer is saved before anything else, whatever has become of the rest        answersAreSaved,
// answersCanBeSaved, callersDoNotMatter
//	I8        no access token is used before its pair is saved                                savedBeforeUse
//	I9        nothing saved lives on after its time                                           oldEpochIsDead,
// nothingSavedLivesOn (rest)
//	I10       readers see whole documents of their connection that were decided               readersSeeWhole
//	I11       connections do not mix                                                          connectionsDoNotMix
//	I12       a code is presented once; states and invitations: package consenttest           codesAreShownOnce
//	I13       no secret is where it can be read                                               disclosesNothing
//	I14, I16  three sweeps bring rest, and another one does nothing                           rest and idle of package
// rotation's tests, Calls, appsAreLeftAlone
//	I15       calls have deadlines; loops end: a Driver's run has a bound                     callsAreBounded
//	I17       people are told                                                                 alarmsRaised (rest)
//	I18       the history tells                                                               historyIsComplete
//	I19       a repair takes effect at once                                                   CheckRepaired (after the
// first run)
//	I20       what a text tells people to do works                                            package rotation's tests

// Check says which invariants the journal of a harness breaks. The journal keeps
// everything, so one check at the end of a run is a check after every step of it.
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

// CheckAtRest is Check and what must hold besides when faults have stopped and
// enough sweeps have passed.
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

func violated(invariant string, e Entry, format string, args ...any) error {
	return fmt.Errorf("%s is broken at %s by %s: %s", invariant, clock(e.At), e.Actor, fmt.Sprintf(format, args...))
}

// position orders pairs: an epoch, and a generation within it.
type position struct{ epoch, generation int64 }

func (p position) before(q position) bool {
	return p.epoch < q.epoch || p.epoch == q.epoch && p.generation < q.generation
}

func positionOf(r rotation.Record) position { return position{r.Epoch, r.Generation} }

// growsOnly is I5: the row's position never falls, and each position has one
// decided pair.
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

// neverGoesBack is the part of I6 that holds at any time: apart from what
// people do by hand, AWSCURRENT only goes up.
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
