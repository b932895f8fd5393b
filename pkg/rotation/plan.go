package rotation

import (
	"cmp"
	"hash/fnv"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// situation is everything that plan depends on.
type situation struct {
	rec       Record
	responses []TokenResponse
	now       time.Time
	settings  Settings

	force       bool          // rotate, due or not
	minTTL      time.Duration // ensure: due if less life than this is left; 0: by the due time
	onlyAt      *ResponseKey  // of a follow-up: the (epoch, generation) it was requested for
	publishOnly bool          // publish: never present
	searched    bool          // this run has searched the secret store and found nothing
	presented   string        // id of the attempt under which this run has presented, if any
	refreshed   string        // id of the attempt under which it has refreshed a waiting consent, if any
	failed      map[act]bool  // steps that failed in this run; they are not tried again in it
}

// act is one step for one response or, without a response, for the whole connection.
type act struct {
	step     Step
	response ResponseKey
}

// move is the result of one rule: a step, and the time from which to take it.
type move struct {
	step     Step
	response TokenResponse // of Decide and Revoke; Revoke without one is the search for late answers
	at       time.Time     // zero: never
	due      time.Time     // when a run has to come for it; zero: the same as at
	outcome  Outcome       // what the run reports if nothing else is left to do
	retryAt  time.Time     // when a retry makes sense, if that is known
}

// plan is a pure function. It takes the first move that is due. If none is, the run
// reports the outcome of the first move that has one.
func plan(s situation) move {
	moves := s.moves()
	for _, m := range moves {
		if !m.at.IsZero() && !s.now.Before(m.at) && !s.failed[act{m.step, m.response.Key}] {
			return move{step: m.step, response: m.response}
		}
	}
	end := moves[slices.IndexFunc(moves, func(m move) bool { return m.outcome != "" })]
	if end.retryAt.IsZero() && waits(end.outcome) {
		end.retryAt = end.at
	}
	return end
}

// dueAt is when a run next has something to do for rec; zero: never. Every write of a
// record sets it, from the same moves that plan chooses from.
func (s Settings) dueAt(rec Record, responses []TokenResponse, now time.Time) (due time.Time) {
	for _, m := range (situation{rec: rec, responses: responses, now: now, settings: s}).moves() {
		at := m.due
		if at.IsZero() {
			at = m.at
		}
		if !at.IsZero() && (due.IsZero() || at.Before(due)) {
			due = at
		}
	}
	if rec.Status == Active && rec.Current != nil && !quarantinedSuccessor(rec, responses) {
		if latest := s.latestDue(rec); due.After(latest) {
			due = latest
		}
	}
	return due.UTC()
}

// latestDue limits the due time of a pair that readers need. It is not by the clock of
// this process: if that is hours ahead and the process fails, another one looks in time.
func (s Settings) latestDue(rec Record) time.Time {
	at := rec.Current.begun()
	if !rec.unpublished() {
		at = s.redeemAt(rec.Connection, *rec.Current)
	}
	return later(at, rec.DueAt).Add(s.Cadence + longestWait)
}

// attemptEnd is when a POST of the attempt has ended. An attempt that begins later than
// now was written by a clock that is ahead; it has ended a lease after another run saw it.
func (s Settings) attemptEnd(a Attempt, now time.Time) time.Time {
	if !a.ahead(now) {
		return a.Until
	}
	seen := a.Seen
	if a.unseen(now) {
		seen = now
	}
	return seen.Add(s.Lease)
}

func (a Attempt) ahead(now time.Time) bool { return a.BegunAt.After(now.Add(token.ClockTolerance)) }

func (a Attempt) unseen(now time.Time) bool {
	return a.Seen.IsZero() || a.Seen.After(now)
}

// waits reports whether a run with this outcome is to be repeated at a known time.
func waits(o Outcome) bool { return o == Busy || o == Deferred || o == ConfigError || o == Unknown }

// moves applies the rules in their order. Normal operation and every recovery use them.
func (s situation) moves() []move {
	moves := s.decideMoves()
	var busy bool
	var busyUntil time.Time
	if s.rec.Status == Active || s.rec.Status == NeedsConsent {
		if s.rec.Current == nil { // a damaged row: nobody knows which responses belong to it, so none is revoked
			return append(moves, move{step: Nothing, outcome: Failed, due: s.rec.DueAt})
		}
		m := s.tokenMove()
		moves, busy, busyUntil = append(moves, m), m.outcome == Busy, m.retryAt
	}
	for _, m := range s.revokeMoves() {
		switch {
		case busy: // another run handles the connection and does this too
			m.at, m.due = time.Time{}, later(m.at, busyUntil)
		case s.rec.unpublished(): // readers may still have the former pair; Publish's write makes this due
			m.at = time.Time{}
		}
		moves = append(moves, m)
	}
	end := move{step: Nothing, outcome: idleOutcome(s.rec)}
	if s.rec.NoticePending { // a sweep must send the notice
		end.due = s.now
	}
	return append(moves, end)
}

// decideMoves has a move for every response that may become the current one. A response
// that waits does not hide another one.
func (s situation) decideMoves() (moves []move) {
	for _, m := range candidates(s.rec, s.responses) {
		at := s.next(Decide, m.Key)
		if a := s.rec.ConsentAttempt; a != nil && a.Consent == m.consent() && a.ID != m.Key.Attempt {
			at = later(at, a.Until.Add(s.settings.Quiet)) // until then its answer may still arrive
		}
		moves = append(moves, move{step: Decide, response: m, at: at})
	}
	return moves
}

// tokenMove is the move for the current pair: publish it, present its refresh token, or
// wait.
func (s situation) tokenMove() move {
	if s.rec.unpublished() {
		return s.publishMove()
	}
	if m := s.successor(); m != nil {
		return s.successorMove(*m)
	}
	a := s.rec.Attempt
	if a == nil {
		return s.redeemMove(time.Time{})
	}
	end := s.settings.attemptEnd(*a, s.now)
	if !s.now.Before(end) && s.rec.ServiceAccount { // asking again loses nothing
		return s.redeemMove(time.Time{})
	}
	open := end.Add(s.settings.Quiet) // until then its answer may still arrive
	due := open
	if s.rec.ServiceAccount {
		due = end
	}
	mine := a.ID == s.presented
	switch {
	case s.now.Before(end) && !mine && !a.Refused:
		return move{step: Wait, outcome: Busy, retryAt: end, due: due}
	case !s.searched:
		m := s.waiting(Recover, ResponseKey{})
		m.at = later(m.at, end)
		if mine || a.Refused {
			m.at = s.next(Recover, ResponseKey{})
		}
		m.due = later(m.at, open)
		return m
	case s.now.Before(open) || mine:
		return move{step: Wait, outcome: Unknown, retryAt: open, due: open}
	case s.publishOnly:
		return move{step: Wait, outcome: Unknown}
	}
	return s.redeemMove(open)
}

// publishMove: any run may publish. The run that obtained the pair has half a lease to do
// it alone, because twenty runs that publish the same pair would use twenty times as much
// of the secret store's quota. A pair without an ancestor was published before, and the
// secret was changed since: no run is about to publish it.
func (s situation) publishMove() move {
	m := s.waiting(Publish, ResponseKey{})
	cur := s.rec.Current
	justSaved := s.now.Sub(cur.SavedAt).Abs() < s.settings.Lease/2 // else the saver's clock is ahead
	if justSaved && s.rec.Ancestor != nil && !s.obtainedCurrent() && !s.publishOnly {
		others := cur.SavedAt.Add(s.settings.Lease / 2)
		return move{step: Wait, outcome: Busy, retryAt: others, due: m.at}
	}
	return m
}

// successorMove: a response to the current refresh token is saved, so the token is not
// presented. decideMoves has the move that decides the response.
func (s situation) successorMove(m TokenResponse) move {
	if m.State == Quarantined {
		return move{step: Quarantine, outcome: InQuarantine}
	}
	wait := s.waiting(Decide, m.Key)
	return move{step: Wait, outcome: wait.outcome, retryAt: wait.at}
}

// redeemMove presents the current refresh token when it is due. After a lost answer it is
// due at open, because the server may have ended the access token that readers have.
func (s situation) redeemMove(open time.Time) move {
	if s.rec.Status == NeedsConsent {
		return s.retryMove(open)
	}
	at := s.replaceAt()
	if lost := !open.IsZero(); lost && !at.IsZero() {
		at = open
	}
	m := s.waiting(Redeem, ResponseKey{})
	m.at = s.backOffUntil(Redeem, ResponseKey{})
	failing := s.failed[act{step: Redeem}] || s.now.Before(m.at) && !at.After(m.at)
	if !failing || s.rec.failure(Redeem, ResponseKey{}) == nil {
		m.outcome = Fresh
	}
	if at.IsZero() {
		return move{step: Nothing, outcome: m.outcome, retryAt: m.at}
	}
	m.at = later(at, m.at, open)
	if cur := s.rec.Current; cur.clocksDiffer() && !s.force && !s.now.Before(cur.SavedAt) {
		// The process that saved the pair has a clock of its own, by which the pair must
		// not be due again at once. By all other clocks it is due in time.
		m.at, m.due = later(m.at, cur.SavedAt.Add(min(putInterval, cur.lifetime()-margin(cur.lifetime())))), m.at
	}
	return m
}

// retryMove presents a refused token again by the schedule of its refusal, and whenever
// a person asks for it. Each time, a complete Recover comes first.
func (s situation) retryMove(open time.Time) move {
	refusal := s.rec.Refusal
	if refusal == nil { // a row that another program wrote
		refusal = &Refusal{Tries: len(retryAfter), NextAt: s.now}
	}
	m := move{step: Redeem, outcome: ConsentNeeded, at: later(refusal.NextAt, s.backOffUntil(Redeem, ResponseKey{}), open)}
	if s.force {
		m.at = later(s.next(Redeem, ResponseKey{}), open)
	}
	switch {
	case s.publishOnly || s.minTTL > 0 || s.presented != "":
		m.step, m.at = Wait, time.Time{}
	case !s.searched:
		m.step = Recover
		m.at = later(m.at, s.next(Recover, ResponseKey{}))
	case !refusal.presents() && !s.force:
		m.step, m.at = Wait, time.Time{}
	}
	return m
}

// revokeMoves has a move for each response that can no longer be decided, and one for
// the search for late answers.
func (s situation) revokeMoves() (moves []move) {
	if at := s.rec.SearchAt; !at.IsZero() {
		moves = append(moves, move{step: Revoke, at: later(at, s.next(Revoke, ResponseKey{}))})
	}
	for _, m := range s.responses {
		if orphan(s.rec, m) {
			moves = append(moves, move{step: Revoke, response: m, at: s.next(Revoke, m.Key)})
		}
	}
	return moves
}

// next is when the step may be tried for the response: now, or after the back-off of its
// failure.
func (s situation) next(step Step, key ResponseKey) time.Time {
	return later(s.now, s.backOffUntil(step, key))
}

// backOffUntil is the end of the back-off of a failure; zero: there is none. A forced
// rotation ends every back-off except a wait that the server asked for and the put
// budget. A wait that is longer than any of its class was noted by a clock that is ahead.
func (s situation) backOffUntil(step Step, key ResponseKey) time.Time {
	f := s.rec.failure(step, key)
	if f == nil || s.force && f.Class != classRateLimited && f.Class != classBudget ||
		f.NextAt.After(s.now.Add(longestBackOff(f.Class)+time.Minute)) {
		return time.Time{}
	}
	return f.NextAt
}

// failure returns the failure of the step for the response, or nil.
func (r Record) failure(step Step, key ResponseKey) *Failure {
	for i := range r.Failures {
		if f := &r.Failures[i]; f.Step == step && f.Response == key {
			return f
		}
	}
	return nil
}

func longestBackOff(class string) time.Duration {
	switch class {
	case classBudget, classQuarantine:
		return daily
	case classConfig:
		return longestOdd
	}
	return longestWait
}

// waiting is the move for a step that may have failed before, with the outcome that is
// reported during its back-off.
func (s situation) waiting(step Step, key ResponseKey) move {
	m := move{step: step, at: s.next(step, key), outcome: Failed}
	if f := s.rec.failure(step, key); f != nil {
		m.outcome, m.retryAt = Deferred, f.NextAt
		if f.Class == classConfig {
			m.outcome = ConfigError
		}
	}
	return m
}

// obtainedCurrent reports whether this run obtained the current pair.
func (s situation) obtainedCurrent() bool {
	if s.rec.Current == nil {
		return false
	}
	by := s.rec.Current.Response.Attempt
	return by != "" && (by == s.presented || by == s.refreshed)
}

// replaceAt is when to replace the current pair; zero: not in this run.
func (s situation) replaceAt() time.Time {
	cur := *s.rec.Current
	lifetime := cur.lifetime()
	switch at := s.onlyAt; {
	case s.presented != "", s.publishOnly, at != nil && after(s.rec.Epoch, s.rec.Generation, at.Epoch, at.Generation):
		return time.Time{}
	case s.force:
		return s.now
	case s.minTTL > 0 && s.minTTL < lifetime: // a request for more life than a new token has is ignored
		left := cur.earliestExpiry().Sub(s.now)
		if left < s.minTTL && (left <= margin(lifetime) || s.settings.hasSpareRoom(s.rec, s.now)) {
			return s.now
		}
		return time.Time{}
	}
	return s.settings.redeemAt(s.rec.Connection, cur)
}

// idleOutcome is the outcome for a connection with nothing to do.
func idleOutcome(rec Record) Outcome {
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
	return r.Status == Active && r.Current != nil && r.Current.VersionID != "" && r.Published != r.Current.VersionID
}

// candidates are the responses that may become the current one: first those of the next
// epoch, then successors in this epoch; within an epoch, the earliest first. Quarantined
// ones are among them, because a newer program may be able to read them.
func candidates(rec Record, responses []TokenResponse) []TokenResponse {
	var found []TokenResponse
	for _, m := range responses {
		if m.State != Rejected && (waitingConsent(rec, m) && !continued(m, responses) || successor(rec, m)) {
			found = append(found, m)
		}
	}
	slices.SortFunc(found, func(a, b TokenResponse) int {
		return cmp.Or(cmp.Compare(b.Key.Epoch, a.Key.Epoch), a.SavedAt.Compare(b.SavedAt), cmp.Compare(a.Key.Attempt,
			b.Key.Attempt))
	})
	return found
}

// successor reports whether m descends from the current pair, that is, whether m answers
// a presentation of the current refresh token.
func successor(rec Record, m TokenResponse) bool {
	return (rec.Status == Active || rec.Status == NeedsConsent) && rec.Current != nil &&
		m.Key.Epoch == rec.Epoch && m.Key.Generation == rec.Generation+1 &&
		m.Source == rec.renewal() && m.Parent == rec.Current.Fingerprint
}

// successor returns a response that shows that the current refresh token is spent and
// that may still become the current one, or nil. While there is one, the token is not
// presented.
func (s situation) successor() *TokenResponse {
	for _, m := range s.responses {
		if m.State != Rejected && successor(s.rec, m) {
			return &m
		}
	}
	return nil
}

// waitingConsent reports whether m is a consent, an import or a service account's token of
// the next epoch, or the refresh of a consent that could not be checked in time.
func waitingConsent(rec Record, m TokenResponse) bool {
	return m.Key.Epoch == rec.Epoch+1 && (m.Key.Generation == 0 && m.Source != FromRefresh || m.Consent != "")
}

// consent is the attempt id of the consent that m is or continues.
func (m TokenResponse) consent() string {
	if m.Consent != "" {
		return m.Consent
	}
	return m.Key.Attempt
}

// continued reports whether a later response of the same consent is saved, so that the
// refresh token of m is spent.
func continued(m TokenResponse, responses []TokenResponse) bool {
	return slices.ContainsFunc(responses, func(other TokenResponse) bool {
		return other.Key.Epoch == m.Key.Epoch && other.Consent == m.consent() && other.Key.Generation > m.Key.Generation
	})
}

// quarantinedSuccessor reports whether the current pair has a quarantined successor. Its
// refresh token is spent then, and only a person can say which token replaced it.
func quarantinedSuccessor(rec Record, responses []TokenResponse) bool {
	return slices.ContainsFunc(responses, func(m TokenResponse) bool {
		return m.State == Quarantined && successor(rec, m)
	})
}

// orphan reports whether m is live but can no longer be decided. A rejected answer to
// the current refresh token is not an orphan until the current pair changes: while it is
// there, its copy in the secret store is not taken for a new response.
func orphan(rec Record, m TokenResponse) bool {
	switch {
	case rec.Current != nil && m.Key == rec.Current.Response, rec.Ancestor != nil && m.Key == *rec.Ancestor:
		return false
	case m.Consent != "" && m.Key.Epoch <= rec.Epoch && !successor(rec, m): // of a consent other than the decided one
		return true
	case m.State == Rejected && (m.Source != FromRefresh || m.Consent != ""):
		return true
	}
	return !after(m.Key.Epoch, m.Key.Generation, rec.Epoch, rec.Generation)
}

func later(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

const (
	// putInterval is the shortest sustained time between two versions of one
	// secret, 99 in a day: AWS keeps about 100 and drops none younger than 24
	// hours (Secrets Manager quotas).
	putInterval = 873 * time.Second
	daily       = 24 * time.Hour
)

// margin is the life that an access token should have left when it is replaced: as much
// as 99 replacements a day (one every 875 s) allow, but always some seconds to do it.
func margin(lifetime time.Duration) time.Duration {
	allowed := lifetime - 875*time.Second
	if allowed < 5*time.Second { // such tokens need more versions a day than the secret store takes in any case
		allowed = 25 * time.Second
	}
	return min(10*time.Minute, allowed, lifetime/2)
}

// lifetime of the access token from begun; 0: there is no token, or the server did not say.
func (c *Current) lifetime() time.Duration {
	if c == nil || c.VersionID == "" {
		return 0
	}
	if stated := c.Lifetime.Duration(); c.clocksDiffer() || c.ExpiresAt.Sub(c.SavedAt) > stated {
		return stated
	}
	return c.ExpiresAt.Sub(c.SavedAt)
}

// begun is the time from which the lifetime counts.
func (c *Current) begun() time.Time {
	if c.clocksDiffer() {
		return c.IssuedAt
	}
	return c.SavedAt
}

// earliestExpiry is when the access token may be dead, whichever clock is right.
func (c *Current) earliestExpiry() time.Time { return c.begun().Add(c.lifetime()) }

// clocksDiffer reports whether the clock of this process and the server's clock differed
// when the pair was saved. IssuedAt is in whole seconds.
func (c *Current) clocksDiffer() bool {
	return c.SavedAt.Sub(c.IssuedAt) > token.ClockTolerance+time.Second
}

// redeemAt is when the current pair is due: late enough that no rotation is wasted, and
// early enough that the next sweep after it still leaves the margin. An imported pair has
// no access token yet and is due at once.
func (s Settings) redeemAt(c token.Connection, cur Current) time.Time {
	if cur.VersionID == "" {
		return cur.SavedAt
	}
	lifetime := cur.lifetime()
	if lifetime <= 0 { // the server did not say, so nobody knows when it ends
		return cur.SavedAt.Add(putInterval)
	}
	earliest := cur.begun().Add(min(putInterval, lifetime-margin(lifetime)))
	latest := cur.earliestExpiry().Add(-s.Cadence - margin(lifetime))
	if !latest.After(earliest) {
		return earliest
	}
	// Spread over the last tenth of that time, so that connections that were connected
	// at the same time are not always due at the same time.
	h := fnv.New32a()
	_, _ = h.Write([]byte(c.String()))
	room := latest.Sub(earliest) / 10
	return latest.Add(-time.Duration(h.Sum32()%1000) * room / 1000)
}

// ensureAt is when a follow-up must replace the current pair, because the sweep after its
// due time would leave less than the margin; zero: the sweeps suffice, or the secret
// store cannot take versions that fast.
func (s Settings) ensureAt(c token.Connection, cur Current) time.Time {
	lifetime := cur.lifetime()
	if cur.VersionID == "" || lifetime <= 0 {
		return time.Time{}
	}
	life := lifetime - margin(lifetime)
	at := cur.begun().Add(life)
	if s.PutsPerDay > 0 && life < putInterval || !s.redeemAt(c, cur).Add(s.Cadence).After(at) {
		return time.Time{}
	}
	return at
}

// hasSpareRoom reports whether the secret store takes more versions in a day than the
// schedule needs. A request for more life must not use up the versions of the schedule.
func (s Settings) hasSpareRoom(rec Record, now time.Time) bool {
	if s.PutsPerDay == 0 {
		return true
	}
	cur := *rec.Current
	every := max(s.Cadence, s.redeemAt(rec.Connection, cur).Sub(cur.begun()))
	if at := s.ensureAt(rec.Connection, cur); !at.IsZero() {
		every = cur.lifetime() - margin(cur.lifetime())
	}
	return len(recentPuts(rec, now))+int(daily/every)+1 < s.PutsPerDay
}

// recentPuts are the puts that still count against the secret store's limit.
func recentPuts(rec Record, now time.Time) []int64 {
	since := now.Add(-daily).Unix()
	return slices.DeleteFunc(slices.Clone(rec.Puts), func(at int64) bool { return at <= since })
}
