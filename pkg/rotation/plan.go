package rotation

import (
	"slices"
	"time"
)

// situation is all that plan looks at.
type situation struct {
	rec      Record
	mints    []Mint
	now      time.Time
	settings Settings

	force     bool          // rotate, due or not
	minTTL    time.Duration // ensure: due if less life than this is left; 0: by the rule
	onlyAt    *MintKey      // of a follow-up: the (epoch, generation) it was asked for
	spendless bool          // publish: never redeem
	looked    bool          // the vault was searched in this turn, in vain
	presented string        // id of the attempt that this turn presented with, if any
	rests     func(Step, MintKey) bool
}

// action is what plan decides.
type action struct {
	step    Step
	mint    Mint      // of Decide; of Revoke, or zero to search for more
	outcome Outcome   // of the rows that end the turn: Hold, Wait, Nothing, and Look when it found nothing
	retryAt time.Time // when trying again makes sense, where that is known
}

// plan is a pure function: the first row that fits wins. The happy path and
// every recovery go through it.
func plan(s situation) action {
	rec := s.rec
	if m := decidable(rec, s.mints); m != nil {
		if !s.rests(Decide, m.Key) {
			return action{step: Decide, mint: *m}
		}
		if m.Key.Epoch == rec.Epoch { // its parent is spent: nothing else may happen
			return s.waitForFailure()
		}
	}
	end := action{step: Nothing, outcome: restingOutcome(rec)}
	switch rec.Status {
	case Active:
		if a, ok := planActive(s); ok && a.outcome != Unknown && a.outcome != Held {
			return a
		} else if ok {
			end = a // may last; what is over is revoked all the same
		}
	case NeedsConsent:
		if !s.looked && !s.rests(Look, MintKey{}) && (s.force || !s.now.Before(rec.DueAt)) {
			return action{step: Look}
		}
	}
	if !rec.Residue.IsZero() && !s.now.Before(rec.Residue) && !s.rests(Revoke, MintKey{}) {
		return action{step: Revoke}
	}
	for _, m := range s.mints {
		if orphan(rec, m) && !s.rests(Revoke, m.Key) {
			return action{step: Revoke, mint: m}
		}
	}
	return end
}

func planActive(s situation) (action, bool) {
	rec := s.rec
	if rec.unpublished() {
		if s.rests(Publish, MintKey{}) {
			return s.waitForFailure(), true
		}
		if theirs := s.othersUntil(); s.now.Before(theirs) {
			return action{step: Wait, outcome: Busy, retryAt: theirs}, true
		}
		return action{step: Publish}, true
	}
	if held(rec, s.mints) {
		return action{step: Hold, outcome: Held}, true
	}
	if a := rec.Attempt; a != nil && !rec.overSpendingNothing(s.now) {
		mine := a.ID == s.presented
		if s.now.Before(a.Until) && !mine {
			return action{step: Wait, outcome: Busy, retryAt: a.Until}, true
		}
		if s.rests(Look, MintKey{}) || s.rests(Redeem, MintKey{}) {
			return s.waitForFailure(), true
		}
		if !s.looked {
			return action{step: Look}, true
		}
		if over := a.Until.Add(s.settings.Quiet); s.now.Before(over) || mine {
			return action{step: Look, outcome: Unknown, retryAt: over}, true
		}
		if s.spendless {
			return action{step: Wait, outcome: Unknown}, true
		}
		return action{step: Redeem}, true
	}
	if s.due() {
		if s.rests(Redeem, MintKey{}) {
			return s.waitForFailure(), true
		}
		return action{step: Redeem}, true
	}
	return action{}, false
}

// othersUntil is when the current pair stops being the business of the run that
// brought it: half a lease after it was saved. Anybody may publish it; but twenty runs that do so beside its own
// would spend twenty times the vault's quota.
func (s situation) othersUntil() time.Time {
	cur := s.rec.Current
	if cur.Mint.Generation == 0 || s.brought() || s.spendless {
		return time.Time{}
	}
	return cur.SavedAt.Add(s.settings.Lease / 2)
}

// brought reports whether the current pair is what this turn presented for.
func (s situation) brought() bool {
	return s.presented != "" && s.rec.Current != nil && s.rec.Current.Mint.Attempt == s.presented
}

// due reports whether the current pair is to be replaced.
func (s situation) due() bool {
	cur := *s.rec.Current
	switch {
	case s.presented != "", s.spendless, s.onlyAt != nil && after(s.rec.Epoch, s.rec.Generation, s.onlyAt.Epoch, s.onlyAt.Generation):
		return false
	case s.force:
		return true
	case s.minTTL > 0 && s.minTTL < cur.lifetime(): // more than a new token could give is no reason to get one
		left := cur.ExpiresAt.Sub(s.now)
		return left < s.minTTL && (left <= margin(cur.lifetime()) || s.settings.roomFor(s.rec, s.now))
	}
	return !s.now.Before(s.settings.redeemAt(s.rec.Connection, cur))
}

// waitForFailure is the action while a failure asks to wait.
func (s situation) waitForFailure() action {
	a := action{step: Wait, outcome: Failed}
	if f := s.rec.Failure; f != nil {
		a.outcome, a.retryAt = Deferred, f.NextAt
		if f.Class == classConfig {
			a.outcome = ConfigError
		}
	}
	return a
}

// restingOutcome names the state of a connection that needs nothing done.
func restingOutcome(rec Record) Outcome {
	switch rec.Status {
	case Active:
		return Fresh
	case Disconnected:
		return NotFound
	}
	return ConsentNeeded
}

// unpublished reports whether the vault does not yet show the current pair.
func (r Record) unpublished() bool {
	return r.Status == Active && r.Current.VersionID != "" && r.Published != r.Current.VersionID
}

// resting reports whether an earlier failure asks the step to wait. A step on
// one mint rests only for that mint: a new one is a new chance.
func (r Record) resting(step Step, key MintKey, now time.Time) bool {
	f := r.Failure
	return f != nil && f.Step == step && now.Before(f.NextAt) && f.Mint == key
}

// besides reports whether the rest of the loop goes on while f waits.
func (f Failure) besides(rec Record) bool {
	return f.Step == Revoke || f.Step == Decide && f.Mint.Epoch > rec.Epoch
}

// decidable returns the saved mint that may become the record's current pair:
// of the next epoch before a successor in this one, then the earliest.
func decidable(rec Record, mints []Mint) *Mint {
	var best *Mint
	for i, m := range mints {
		if m.State != Saved || !(nextEpoch(rec, m) || successor(rec, m)) {
			continue
		}
		if best == nil || after(m.Key.Epoch, 0, best.Key.Epoch, 0) ||
			m.Key.Epoch == best.Key.Epoch && (m.SavedAt.Before(best.SavedAt) ||
				m.SavedAt.Equal(best.SavedAt) && m.Key.Attempt < best.Key.Attempt) {
			best = &mints[i]
		}
	}
	return best
}

// successor reports lineage: m answers the presentation of the current refresh token.
func successor(rec Record, m Mint) bool {
	return (rec.Status == Active || rec.Status == NeedsConsent) && rec.Current != nil &&
		m.Key.Epoch == rec.Epoch && m.Key.Generation == rec.Generation+1 &&
		m.Source == rec.renewal() && m.Parent == rec.Current.Fingerprint
}

func nextEpoch(rec Record, m Mint) bool {
	return m.Key.Epoch == rec.Epoch+1 && m.Key.Generation == 0 && (m.Source == FromCode || m.Source == FromImport)
}

// held reports whether a quarantined successor of the current pair exists: the
// current refresh token is spent, and only a person can say what came of it.
func held(rec Record, mints []Mint) bool {
	return slices.ContainsFunc(mints, func(m Mint) bool { return m.State == Quarantined && successor(rec, m) })
}

// orphan reports whether m is live but can no longer be decided. An answer of the
// current refresh token that was rejected is none until something follows: as long
// as its mint is there, its copy in the vault is not taken home as a new one.
func orphan(rec Record, m Mint) bool {
	if rec.Current != nil && m.Key == rec.Current.Mint || rec.Ancestor != nil && m.Key == *rec.Ancestor {
		return false
	}
	if m.State != Saved && m.Source != FromRefresh { // nobody can release a consent: there is another for the asking
		return true
	}
	return !after(m.Key.Epoch, m.Key.Generation, rec.Epoch, rec.Generation)
}
