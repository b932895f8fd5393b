package rotationtest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Nothing that was saved is lost (I3), no consent is requested without need (I4), and a
// repair takes effect at once (I19).

// nothingSavedIsLost is I3 at rest: no saved successor or consent waits; none that arrived
// whole was rejected, unless it is a consent of another identity; and the issuer gave the
// current pair.
func nothingSavedIsLost(b *Harness, r rotation.Record, saved map[token.Fingerprint]savedAs) error {
	lost := fmt.Errorf("I3 is broken at rest: %s is %s at %v", r.Connection, r.Status, positionOf(r))
	for _, m := range b.Ledger.responsesOf(r.Connection) {
		decidable := r.Current != nil && m.Key.Epoch == r.Epoch && m.Key.Generation == r.Generation+1 &&
			m.Parent == r.Current.Fingerprint ||
			m.Key.Epoch == r.Epoch+1
		if m.State == rotation.Saved && decidable {
			return fmt.Errorf("%w, and its saved successor %v is not decided", lost, m.Key)
		}
	}
	for pair, as := range saved {
		if as.rejected && !as.rightly && !b.Issuer.Personality.NoRotation { // tokenturn cannot work with such a server
			return fmt.Errorf("%w, and the pair %s, saved whole for (%d,%d), was rejected", lost, short(pair), as.key.Epoch,
				as.key.Generation)
		}
	}
	if r.Current != nil && !r.ServiceAccount && b.Issuer.Family(r.Current.Fingerprint) == 0 {
		return fmt.Errorf("%w, and the issuer did not give its current pair", lost)
	}
	return nil
}

// mayBeRejected reports whether the consent m may be rejected now: another one came first,
// its pair is dead, or it is not the consent that was requested.
func (b *Harness) mayBeRejected(m rotation.TokenResponse, pair token.Fingerprint, row rotation.Record, dead bool) bool {
	if m.Source != rotation.FromCode {
		return false
	}
	if dead || row.Epoch >= m.Key.Epoch || b.Applications.otherClients(m.Connection.Environment) {
		return true
	}
	is, expect, pin := b.Issuer.consenter(b.Issuer.Family(pair)), rotation.Identity{}, rotation.Pin{}
	if m.Expect != nil {
		expect = *m.Expect
	}
	if row.Pin != nil && !expect.Repin {
		pin = *row.Pin
	}
	differs := func(want, got string) bool { return want != "" && want != got }
	return b.Applications.clientID(m.Connection.Environment) != is.ClientID ||
		differs(expect.ResourceOwner, is.ResourceOwner) || differs(strings.ToLower(expect.Login),
		strings.ToLower(is.Login)) ||
		differs(m.Company, is.Company) || differs(pin.Company, m.Company) || differs(pin.ResourceOwner, is.ResourceOwner)
}

// noConsentIsAskedFor is I4 at rest: a connection that needs a new consent has lost a pair
// that was never saved, or the consent was withdrawn. If the server refused by mistake, the
// token was presented again.
func noConsentIsAskedFor(b *Harness, r rotation.Record) error {
	if r.Status != rotation.NeedsConsent {
		return nil
	}
	if b.Issuer.Takes(r.Current.Fingerprint) && !b.Issuer.Personality.NoRotation {
		return fmt.Errorf("I4 is broken at rest: %s needs consent, and the issuer still takes its refresh token",
			r.Connection)
	}
	if !b.lostUnsaved(r.Current.Fingerprint) && !b.takenAway(r.Current.Fingerprint) {
		return fmt.Errorf("I4 is broken at rest: %s needs consent, and no answer to its refresh token was lost unsaved",
			r.Connection)
	}
	return nil
}

// consentIsNeeded is I4 at the moment when needs_consent is written. The issuer has refused
// the token. No successor was saved by then, because everything is read again after a
// refusal. And an answer was lost (W1 to W3), a person has withdrawn the consent, or the
// server was wrong.
func consentIsNeeded(b *Harness) error {
	type refusal struct {
		successors int
		dead       bool
	}
	refused := map[token.Fingerprint]refusal{}
	granted, gone := map[token.Fingerprint]int{}, map[token.Fingerprint]bool{}
	status := map[token.Connection]rotation.Status{}
	saved := successors{}
	for _, e := range b.Journal.Entries() {
		saved.note(e)
		switch effect := e.Effect.(type) {
		case Granted:
			granted[effect.What]++
		case Ended:
			gone[effect.Pair] = gone[effect.Pair] || effect.takenAway()
		case Answered:
			if effect.Class == rotation.Refused {
				refused[effect.What] = refusal{saved.of(effect.What), effect.Dead}
			}
		case Restored: // responses that only the table had may be gone
			status[e.Connection] = effect.Record.Status
			saved.forget(e.Connection)
		case Wrote:
			r := effect.Change.Record
			asks := r.Status == rotation.NeedsConsent && status[e.Connection] != r.Status
			status[e.Connection] = r.Status
			if !asks {
				continue
			}
			what := r.Current.Fingerprint
			was, known := refused[what]
			switch {
			case !known:
				return violated("I4", e, "%s needs consent, and nobody has refused its refresh token", e.Connection)
			case was.successors > 0 && saved.of(what) > 0:
				return violated("I4", e, "%s needs consent, and a successor was saved before the issuer refused its refresh token",
					e.Connection)
			case was.dead && !gone[what] && granted[what] <= was.successors:
				return violated("I4", e, "%s needs consent, and no answer to its refresh token was lost unsaved", e.Connection)
			}
		}
	}
	return nil
}

// lostUnsaved reports whether the issuer gave more pairs for the token than usable responses
// to it were saved (W1, W2 and W3 of the protocol).
func (b *Harness) lostUnsaved(parent token.Fingerprint) bool {
	granted, saved := 0, successors{}
	for _, e := range b.Journal.Entries() {
		saved.note(e)
		if g, ok := e.Effect.(Granted); ok && g.What == parent {
			granted++
		}
	}
	return granted > saved.of(parent)
}

// takenAway reports whether a person withdrew the consent, or the server ended all its pairs
// because a token was presented again after its answer was lost.
func (b *Harness) takenAway(pair token.Fingerprint) bool {
	return slices.ContainsFunc(b.Journal.Entries(), func(e Entry) bool {
		ended, ok := e.Effect.(Ended)
		return ok && ended.Pair == pair && ended.takenAway()
	})
}

func (e Ended) takenAway() bool { return e.Why == Withdrawn || e.Why == reused }

// budgetsAreKept is I7 for the room in a secret, if the harness limits it: no version that
// the engine must keep is refused for lack of room, because the token is spent by then.
func budgetsAreKept(b *Harness) error {
	if b.SecretStore.MaxVersions == 0 {
		return nil
	}
	for _, e := range b.Journal.Entries() {
		if _, full := e.Effect.(Full); full && e.Actor != "" {
			return violated("I7", e, "the secret of %s has no room for what it is given", e.Connection)
		}
	}
	return nil
}

// CheckRepaired is I19 and CheckAtRest. Call it after the first sweep, or the first forced
// rotation, since everything works again. It returns the connections that do not work.
func CheckRepaired(b *Harness) error {
	errs := []error{CheckAtRest(b)}
	for _, r := range b.Ledger.records() {
		if err := b.inOrder(r); err != nil {
			errs = append(errs, fmt.Errorf("I19 is broken: after the repair %s is %s at %v, and %w", r.Connection, r.Status,
				positionOf(r), err))
		}
	}
	return errors.Join(errs...)
}

func (b *Harness) inOrder(r rotation.Record) error {
	switch {
	case len(r.Attempts()) > 0:
		return errors.New("an attempt is left")
	case r.NoticePending:
		return errors.New("nobody was notified")
	case r.Status != rotation.Active:
		return nil
	}
	if !b.LiveUntil(r.Connection).After(time.Now()) {
		return errors.New("readers find no live token")
	}
	return nil
}

// LiveUntil is when the access token that readers of c find now expires, if nothing ends it
// earlier.
func (b *Harness) LiveUntil(c token.Connection) (until time.Time) {
	v, err := b.SecretStore.shown(c)
	if err != nil {
		return until
	}
	if doc, err := token.ParseDocument(v.Value); err == nil {
		_, until = b.Issuer.Lives(doc.AccessToken)
	}
	return until
}

// WithoutToken is how long, between two times, readers of c found no access token that the
// issuer accepted.
func (b *Harness) WithoutToken(c token.Connection, from, to time.Time) (gap time.Duration) {
	values := map[string]token.Secret{}
	alive := func(id string, from, to time.Time) time.Duration {
		doc, err := token.ParseDocument(values[id])
		if err != nil || !from.Before(to) {
			return 0
		}
		born, dies := b.Issuer.Lives(doc.AccessToken)
		return max(0, earlier(dies, to).Sub(later(born, from)))
	}
	gap = to.Sub(from)
	shown, since := "", from
	for _, e := range b.Journal.Entries() {
		if e.Connection != c {
			continue
		}
		switch effect := e.Effect.(type) {
		case Stored:
			values[effect.Version.ID] = effect.Version.Value
		case Moved:
			if effect.Label == current {
				gap -= alive(shown, later(since, from), earlier(e.At, to))
				shown, since = effect.To, e.At
			}
		}
	}
	return gap - alive(shown, later(since, from), to)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
