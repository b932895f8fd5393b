package rotation

import (
	"slices"
	"time"
)

// situation is all that plan looks at.
type situation struct {
	rec       Record
	responses []TokenResponse
	now       time.Time
	settings  Settings

	force     bool          // rotate, due or not
	minTTL    time.Duration // ensure: due if less life than this is left; 0: by the rule
	onlyAt    *ResponseKey  // of a follow-up: the (epoch, generation) it was asked for
	spendless bool          // publish: never redeem
	looked    bool          // the secret store was searched in this turn, in vain
	presented string        // id of the attempt that this turn presented with, if any
	rests     func(Step, ResponseKey) bool
}

// action is what plan decides.
type action struct {
	step     Step
	response TokenResponse // of Decide; of Revoke, or zero to search for more
	outcome  Outcome       // of the rows that end the turn: Hold, Wait, Nothing, and Look when it found nothing
	retryAt  time.Time     // when trying again makes sense, where that is known
}

// plan is a pure function: the first row that fits wins. The happy path and
// every recovery go through it.
func plan(s situation) action {
	rec := s.rec
	if m := decidable(rec, s.responses); m != nil {
		if !s.rests(Decide, m.Key) {
			return action{step: Decide, response: *m}
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
		if !s.looked && !s.rests(Look, ResponseKey{}) && (s.force || !s.now.Before(rec.DueAt)) {
			return action{step: Look}
		}
	}
	if !rec.Residue.IsZero() && !s.now.Before(rec.Residue) && !s.rests(Revoke, ResponseKey{}) {
		return action{step: Revoke}
	}
	for _, m := range s.responses {
		if orphan(rec, m) && !s.rests(Revoke, m.Key) {
			return action{step: Revoke, response: m}
		}
	}
	return end
}

func planActive(s situation) (action, bool) {
	rec := s.rec
	if rec.unpublished() {
		if s.rests(Publish, ResponseKey{}) {
			return s.waitForFailure(), true
		}
		if theirs := s.othersUntil(); s.now.Before(theirs) {
			return action{step: Wait, outcome: Busy, retryAt: theirs}, true
		}
		return action{step: Publish}, true
	}
	if held(rec, s.responses) {
		return action{step: Hold, outcome: Held}, true
	}
	if a := rec.Attempt; a != nil && !rec.overSpendingNothing(s.now) {
		mine := a.ID == s.presented
		if s.now.Before(a.Until) && !mine {
			return action{step: Wait, outcome: Busy, retryAt: a.Until}, true
		}
		if s.rests(Look, ResponseKey{}) || s.rests(Redeem, ResponseKey{}) {
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
		if s.rests(Redeem, ResponseKey{}) {
			return s.waitForFailure(), true
		}
		return action{step: Redeem}, true
	}
	return action{}, false
}

// othersUntil is when the current pair stops being the business of the run that
// brought it: half a lease after it was saved. Anybody may publish it; but twenty runs that do so beside its own
// would spend twenty times the secret store's quota.
func (s situation) othersUntil() time.Time {
	cur := s.rec.Current
	if cur.Response.Generation == 0 || s.brought() || s.spendless {
		return time.Time{}
	}
	return cur.SavedAt.Add(s.settings.Lease / 2)
}

// brought reports whether the current pair is what this turn presented for.
func (s situation) brought() bool {
	return s.presented != "" && s.rec.Current != nil && s.rec.Current.Response.Attempt == s.presented
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

// unpublished reports whether the secret store does not yet show the current pair.
func (r Record) unpublished() bool {
	return r.Status == Active && r.Current.VersionID != "" && r.Published != r.Current.VersionID
}

// resting reports whether an earlier failure asks the step to wait. A step on
// one response rests only for that response: a new one is a new chance.
func (r Record) resting(step Step, key ResponseKey, now time.Time) bool {
	f := r.Failure
	return f != nil && f.Step == step && now.Before(f.NextAt) && f.Response == key
}

// besides reports whether the rest of the loop goes on while f waits.
func (f Failure) besides(rec Record) bool {
	return f.Step == Revoke || f.Step == Decide && f.Response.Epoch > rec.Epoch
}

// decidable returns the saved response that may become the record's current pair:
// of the next epoch before a successor in this one, then the earliest.
func decidable(rec Record, responses []TokenResponse) *TokenResponse {
	var best *TokenResponse
	for i, m := range responses {
		if m.State != Saved || !(nextEpoch(rec, m) || successor(rec, m)) {
			continue
		}
		if best == nil || after(m.Key.Epoch, 0, best.Key.Epoch, 0) ||
			m.Key.Epoch == best.Key.Epoch && (m.SavedAt.Before(best.SavedAt) ||
				m.SavedAt.Equal(best.SavedAt) && m.Key.Attempt < best.Key.Attempt) {
			best = &responses[i]
		}
	}
	return best
}

// successor reports lineage: m answers the presentation of the current refresh token.
func successor(rec Record, m TokenResponse) bool {
	return (rec.Status == Active || rec.Status == NeedsConsent) && rec.Current != nil &&
		m.Key.Epoch == rec.Epoch && m.Key.Generation == rec.Generation+1 &&
		m.Source == rec.renewal() && m.Parent == rec.Current.Fingerprint
}

func nextEpoch(rec Record, m TokenResponse) bool {
	return m.Key.Epoch == rec.Epoch+1 && m.Key.Generation == 0 && (m.Source == FromCode || m.Source == FromImport)
}

// held reports whether a quarantined successor of the current pair exists: the
// current refresh token is spent, and only a person can say what came of it.
func held(rec Record, responses []TokenResponse) bool {
	return slices.ContainsFunc(responses, func(m TokenResponse) bool { return m.State == Quarantined && successor(rec, m) })
}

// orphan reports whether m is live but can no longer be decided. An answer of the
// current refresh token that was rejected is none until something follows: as long
// as its response is there, its copy in the secret store is not taken home as a new one.
func orphan(rec Record, m TokenResponse) bool {
	if rec.Current != nil && m.Key == rec.Current.Response || rec.Ancestor != nil && m.Key == *rec.Ancestor {
		return false
	}
	if m.State != Saved && m.Source != FromRefresh { // nobody can release a consent: there is another for the asking
		return true
	}
	return !after(m.Key.Epoch, m.Key.Generation, rec.Epoch, rec.Generation)
}
