package rotationtest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// The life of pairs: they are saved first (I7, I8), shown whole (I10) to their own
// connection (I11), given for a code only once (I12), and revoked when their time is over
// (I9).

// answersAreSaved is I7: an actor that receives an answer saves it before it does anything
// else to the connection, whatever happened to attempt, epoch and caller meanwhile; or it
// notifies people that it could not.
func answersAreSaved(b *Harness) error {
	entries := b.Journal.Entries()
	owner := map[token.Fingerprint]token.Connection{}
	isCode := map[token.Fingerprint]bool{}
	for i, e := range entries {
		switch effect := e.Effect.(type) {
		case Wrote:
			for _, a := range effect.Change.Record.Attempts() {
				owner[a.Fingerprint] = e.Connection
			}
		case Presented:
			isCode[effect.What] = effect.Code && e.Actor != "" // a test may exchange codes itself
		case Answered:
			c, known := owner[effect.What]
			if effect.Class != rotation.Captured || !known && !isCode[effect.What] {
				continue
			}
			answers := func(m rotation.TokenResponse) bool {
				return m.Parent == effect.What || isCode[effect.What] && m.Source == rotation.FromCode
			}
			saved, at, what := unsaved(entries[i:], c, answers)
			if at != nil {
				return violated("I7", *at, "the answer to #%d %s", effect.N, what)
			}
			if b.Log.wroteBetween(e.Actor, c, i, i+saved) {
				return violated("I7", e, "something is logged before the answer to #%d is saved", effect.N)
			}
		}
	}
	return nil
}

// wroteBetween reports whether the actor has logged anything between two entries of the
// journal. Records about another connection do not count, because an actor may handle
// several at once.
func (l *Log) wroteBetween(actor string, c token.Connection, after, before int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first, _ := slices.BinarySearchFunc(l.logged, after+1, func(r logged, n int) int { return cmp.Compare(r.entries, n) })
	for _, r := range l.logged[first:] {
		if r.entries > before {
			break
		}
		if r.actor == actor && (c.IsZero() || r.connection == "" || r.connection == c.String()) {
			return true
		}
	}
	return false
}

// unsaved returns the entry in which the actor that received an answer does something other
// than saving it. It returns nil if the actor saves it (saved says in which entry), dies, or
// notifies people that it could not. The answer to a code has no connection yet.
func unsaved(entries []Entry, c token.Connection, answers func(rotation.TokenResponse) bool) (saved int, at *Entry,
	what string) {
	answered := entries[0]
	for n, e := range entries[1:] {
		if e.Actor != answered.Actor || !c.IsZero() && !e.Connection.IsZero() && e.Connection != c {
			continue
		}
		switch effect := e.Effect.(type) {
		case Responded:
			if answers(effect.TokenResponse) {
				return n + 1, nil, ""
			}
		case Stored:
			if m, ok := escrowed(effect.Version); ok && answers(m) {
				return n + 1, nil, ""
			}
		case Noticed:
			if effect.Notice.Kind == rotation.NoticeUnsaved {
				return 0, nil, ""
			}
		case Faulted:
			if effect.Fault.Kind == Crash || effect.At.Call == "notifier.Notify" {
				return 0, nil, ""
			}
		case Wrote:
			return 0, &e, "is not saved yet"
		}
	}
	return 0, &answered, "is never saved, and nobody is notified"
}

// savedBeforeUse is I8: the access token of a pair is not used before its answer is saved. A
// response is identified by its parent here, and the response to a code by its source.
func savedBeforeUse(b *Harness) error {
	parent := map[token.Fingerprint]token.Fingerprint{} // of a pair; for a pair from a code, the code
	children, codes := map[token.Fingerprint]bool{}, false
	isCode := map[token.Fingerprint]bool{}
	save := func(m rotation.TokenResponse) {
		children[m.Parent] = true
		codes = codes || m.Source == rotation.FromCode
	}
	for _, e := range b.Journal.Entries() {
		switch effect := e.Effect.(type) {
		case Presented:
			isCode[effect.What] = effect.Code
		case Granted:
			parent[effect.Pair] = effect.What
		case Responded:
			save(effect.TokenResponse)
		case Stored:
			if m, ok := escrowed(effect.Version); ok {
				save(m)
			}
		case Used:
			from := parent[effect.Pair]
			if !children[from] && !(isCode[from] && codes) {
				return violated("I8", e, "the access token of pair %s is used before the pair is saved", short(effect.Pair))
			}
		}
	}
	return nil
}

// readersSeeWhole is I10: every version that AWSCURRENT is moved to, except by hand, is a
// whole document of that connection with an access token of the issuer, and the ledger has
// decided it. That it has no plaintext refresh token is part of I13.
func readersSeeWhole(b *Harness) error {
	given := map[token.Secret]bool{}
	access, _ := b.Issuer.Secrets()
	for _, secret := range access {
		given[secret] = true
	}
	values, decided := map[string]token.Secret{}, map[string]bool{}
	for _, e := range b.Journal.Entries() {
		switch effect := e.Effect.(type) {
		case Wrote:
			if cur := effect.Change.Record.Current; cur != nil {
				decided[cur.VersionID] = true
			}
		case Stored:
			values[effect.Version.ID] = effect.Version.Value
		case Moved:
			if effect.Label != current || effect.ByHand {
				continue
			}
			doc, err := token.ParseDocument(values[effect.To])
			switch {
			case err != nil:
				return violated("I10", e, "readers of %s see a value that is no document", e.Connection)
			case doc.Connection != e.Connection:
				return violated("I10", e, "readers of %s see the document of %s", e.Connection, doc.Connection)
			case !decided[effect.To]:
				return violated("I10", e, "readers of %s see what was never decided", e.Connection)
			case !given[doc.AccessToken] || doc.ExpiresAt.IsZero():
				return violated("I10", e, "readers of %s see an access token that the issuer did not give", e.Connection)
			}
		}
	}
	return nil
}

// connectionsDoNotMix is I11: two connections never have pairs of one consent, and the owner
// of a consent was checked and matches the owner of the connection.
func connectionsDoNotMix(b *Harness) error {
	owner := map[int]token.Connection{}
	pinned := map[token.Connection]string{} // the user
	asked := map[rotation.ResponseKey]rotation.Identity{}
	for _, e := range b.Journal.Entries() {
		if responded, ok := e.Effect.(Responded); ok && responded.TokenResponse.Expect != nil {
			asked[responded.TokenResponse.Key] = *responded.TokenResponse.Expect
		}
		wrote, ok := e.Effect.(Wrote)
		if !ok || wrote.Change.Record.Current == nil {
			continue
		}
		record := wrote.Change.Record
		family := b.Issuer.Family(record.Current.Fingerprint)
		if c, known := owner[family]; family != 0 && known && c != e.Connection {
			return violated("I11", e, "%s has a pair of the consent of %s", e.Connection, c)
		}
		owner[family] = e.Connection
		if expect, ok := asked[record.Current.Response]; ok {
			is := b.Issuer.consenter(family)
			if expect.ResourceOwner != "" && expect.ResourceOwner != is.ResourceOwner || expect.Login != "" &&
				expect.Login != is.Login ||
				!expect.Repin && pinned[e.Connection] != "" && pinned[e.Connection] != is.ResourceOwner {
				return violated("I11", e, "%s has the consent of somebody else", e.Connection)
			}
		}
		if record.Pin != nil {
			pinned[e.Connection] = record.Pin.ResourceOwner
		}
	}
	return nil
}

// consenter returns the identity that gave the consent.
func (i *Issuer) consenter(family int) rotation.Identity {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, p := range i.pairs {
		if p.family == family {
			return p.owner
		}
	}
	return rotation.Identity{}
}

// codesAreShownOnce is the part of I12 that concerns the engine. States and invitations are
// the part of the consent store.
func codesAreShownOnce(b *Harness) error {
	shown := map[token.Fingerprint]bool{}
	for _, e := range b.Journal.Entries() {
		switch effect := e.Effect.(type) {
		case Presented:
			if effect.Code && shown[effect.What] {
				return violated("I12", e, "the code %s is presented again", short(effect.What))
			}
			shown[effect.What] = effect.Code
		case Answered:
			if effect.Class == rotation.ClientFault { // it spends nothing; there may be another client secret
				delete(shown, effect.What)
			}
		}
	}
	return nil
}

// callsAreBounded is the first half of I15. The Driver checks the second half, that every
// loop ends: a run with too many steps is an error.
func callsAreBounded(b *Harness) error {
	for _, e := range b.Journal.Entries() {
		if u, ok := e.Effect.(Unbounded); ok {
			return violated("I15", e, "%s is called without a deadline", u.At.Call)
		}
	}
	return nil
}

// oldEpochIsDead is I9 at rest: no pair that was current in an earlier epoch can be
// redeemed, unless it belongs to the same consent as the current pair.
func oldEpochIsDead(b *Harness, r rotation.Record) error {
	if r.Attempt != nil {
		return nil // not at rest
	}
	now := 0 // the consent of the current pair
	if r.Current != nil {
		now = b.Issuer.Family(r.Current.Fingerprint)
	}
	spent := b.formerAncestors(r)
	for _, e := range b.Journal.Entries() {
		wrote, ok := e.Effect.(Wrote)
		if !ok || e.Connection != r.Connection || wrote.Change.Record.Current == nil || wrote.Change.Record.Epoch >= r.Epoch {
			continue
		}
		old := wrote.Change.Record.Current.Fingerprint
		if !spent[old] && b.Issuer.Family(old) != now && b.Issuer.Takes(old) && !b.Issuer.outlivedRevocation(old) {
			return fmt.Errorf("I9 is broken at rest: %s is in epoch %d, and the pair %s of epoch %d can still be redeemed",
				r.Connection, r.Epoch, short(old), wrote.Change.Record.Epoch)
		}
	}
	return nil
}

// formerAncestors are the pairs that another pair of their epoch succeeded. On a server that
// ends a pair with the first use of its successor, a pair stays alive if its successor was
// never used. Its bytes are gone, so nobody can revoke it.
func (b *Harness) formerAncestors(r rotation.Record) map[token.Fingerprint]bool {
	last := map[int64]token.Fingerprint{}
	for _, e := range b.Journal.Entries() {
		if w, ok := e.Effect.(Wrote); ok && e.Connection == r.Connection && w.Change.Record.Current != nil {
			last[w.Change.Record.Epoch] = w.Change.Record.Current.Fingerprint
		}
	}
	ancestors := map[token.Fingerprint]bool{}
	for _, pair := range last {
		for _, ancestor := range b.Issuer.ancestry(pair) {
			ancestors[ancestor] = ancestors[ancestor] || ancestor != pair
		}
	}
	return ancestors
}

// nothingSavedLivesOn is I9 at rest: of all saved pairs, only the current one, its
// ancestors, and those that wait for a person can be redeemed. An answer that was given up
// waits for the consent that is needed.
func nothingSavedLivesOn(b *Harness, r rotation.Record, saved map[token.Fingerprint]savedAs) error {
	if r.Attempt != nil {
		return nil // not at rest
	}
	kept := b.formerAncestors(r)
	if r.Current != nil && r.Status != rotation.Disconnected {
		for _, ancestor := range b.Issuer.ancestry(r.Current.Fingerprint) {
			kept[ancestor] = true
		}
	}
	givenUp := map[rotation.ResponseKey]bool{}
	for _, m := range b.Ledger.responsesOf(r.Connection) {
		givenUp[m.Key] = m.State == rotation.Rejected && r.Status == rotation.NeedsConsent
	}
	quarantined := slices.ContainsFunc(b.Ledger.responsesOf(r.Connection),
		func(m rotation.TokenResponse) bool { return m.State == rotation.Quarantined })
	for pair, as := range saved {
		escrow := !as.inLedger && as.key.Epoch == r.Epoch // found by the search after the epoch ends
		if kept[pair] || givenUp[as.key] || escrow || quarantined && as.key.Epoch == r.Epoch || !b.Issuer.Takes(pair) ||
			b.Issuer.outlivedRevocation(pair) {
			continue
		}
		return fmt.Errorf("I9 is broken at rest: %s is %s at %v, and the pair %s, saved for (%d,%d), can still be redeemed",
			r.Connection, r.Status, positionOf(r), short(pair), as.key.Epoch, as.key.Generation)
	}
	return nil
}

// savedAs is the response that a pair was saved as.
type savedAs struct {
	key      rotation.ResponseKey
	response rotation.TokenResponse
	inLedger bool
	rejected bool
	rightly  bool // rejected, because the consent is not the one that was requested
}

// savedPairs finds, for each pair that was saved whole for c, the response it was saved as.
// A refresh is identified by the attempt under which it was presented, a code by the actor
// that presented it last before saving.
func savedPairs(b *Harness, c token.Connection) map[token.Fingerprint]savedAs {
	attempts := map[token.Fingerprint]string{} // the attempt on a token now
	under := map[int]string{}                  // a presentation: the attempt, or the actor
	granted := map[string]token.Fingerprint{}
	cut := map[string]bool{} // the answer to an actor
	saved := map[token.Fingerprint]savedAs{}
	unopened := rotation.ResponseKey{} // a response that a person may give up
	inLedger := map[rotation.ResponseKey]bool{}
	row, dead := rotation.Record{}, map[token.Fingerprint]bool{}
	save := func(e Entry, m rotation.TokenResponse) {
		if e.Connection != c || m.Connection != c {
			return
		}
		by := "attempt " + m.Key.Attempt
		if m.Source == rotation.FromCode {
			by = "actor " + e.Actor
		}
		if pair, found := granted[by]; found {
			was := saved[pair]
			saved[pair] = savedAs{m.Key, m, inLedger[m.Key], was.rejected, was.rightly}
		}
	}
	for _, e := range b.Journal.Entries() {
		switch effect := e.Effect.(type) {
		case Wrote:
			for _, a := range effect.Change.Record.Attempts() {
				attempts[a.Fingerprint] = a.ID
			}
			for _, mark := range effect.Change.Mark {
				for pair, as := range saved {
					switch {
					case as.key != mark.Key:
					case mark.State == rotation.Quarantined: // which of its pairs is the right one is not known
						delete(saved, pair)
					default:
						as.rejected = as.key != unopened
						as.rightly = as.rightly || b.mayBeRejected(as.response, pair, row, dead[pair])
						saved[pair] = as
					}
				}
			}
			if e.Connection == c {
				row = effect.Change.Record
			}
			for _, f := range effect.Change.Record.Failures {
				if f.Step == rotation.Decide && e.Connection == c {
					unopened = f.Response
				}
			}
		case Ended:
			dead[effect.Pair] = true
		case Presented:
			under[effect.N] = "attempt " + attempts[effect.What]
			if effect.Code {
				under[effect.N] = "actor " + e.Actor
			}
		case Granted:
			if effect.Pair != "" {
				granted[under[effect.N]] = effect.Pair
			}
		case Answered:
			if cut[e.Actor] { // the pair is not known
				delete(granted, under[effect.N])
			}
			cut[e.Actor] = false
		case Faulted:
			cut[e.Actor] = effect.Fault.Kind == Cut
		case Purged:
			maps.DeleteFunc(saved, func(_ token.Fingerprint, as savedAs) bool { return e.Connection == c && !inLedger[as.key] })
		case Responded:
			inLedger[effect.TokenResponse.Key] = inLedger[effect.TokenResponse.Key] || e.Connection == c
			save(e, effect.TokenResponse)
		case Stored:
			if m, ok := escrowed(effect.Version); ok {
				save(e, m)
			}
		}
	}
	return saved
}

// ancestry is the pair and those it came from.
func (i *Issuer) ancestry(refresh token.Fingerprint) (all []token.Fingerprint) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for p := i.byPrint[refresh]; p != nil; p = p.parent {
		all = append(all, p.refresh.Fingerprint())
	}
	return all
}

// outlivedRevocation reports whether the pair stays alive because of the server: it answers
// the revocation of an expired pair with success and does nothing; or it keeps a pair alive
// until its successor is used, and the successor was replaced before its first use.
func (i *Issuer) outlivedRevocation(refresh token.Fingerprint) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	p := i.byPrint[refresh]
	replacedUnused := func(next *pair) bool { return next.parent == p && !next.used && !next.redeemed.IsZero() }
	return p != nil && (i.Personality.RevokesOnlyFresh && !time.Now().Before(p.expires) ||
		i.Personality.Overlap && slices.ContainsFunc(i.pairs, replacedUnused))
}
