package rotationtest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// story makes the calls of a rotation by hand, in any order.
type story struct {
	*Harness
	ctx context.Context
}

func runStory(t *testing.T, p Personality, steps func(*story)) (atAnyTime, atRest error) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(WithActor(t.Context(), "story"), 48*time.Hour)
		defer cancel()
		s := &story{NewHarness(nil, p), ctx}
		steps(s)
		time.Sleep(time.Minute) // what is slow has come back
		atAnyTime, atRest = Check(s.Harness), CheckAtRest(s.Harness)
	})
	return atAnyTime, atRest
}

// change rewrites the row, with the history and the notices that go with it.
func (s *story) change(edit func(*rotation.Record), marks ...rotation.TokenResponse) {
	before, _, _ := s.Ledger.Load(s.ctx, acme)
	record := deepCopy(before)
	edit(&record)
	change := rotation.Change{Record: record, Mark: marks, History: rowsOf(before, record)}
	if _, err := s.Ledger.Write(s.ctx, change); err != nil {
		panic(err)
	}
	for _, m := range marks {
		s.notice(string(m.State))
	}
	if record.Status == rotation.NeedsConsent {
		s.notice(rotation.NoticeNeedsConsent)
	}
}

func (s *story) notice(kind string) {
	_ = s.Notifier.Notify(s.ctx, rotation.Notice{Kind: kind, Connection: acme})
}

// rowsOf is the history that a change must have.
func rowsOf(was, is rotation.Record) (rows []rotation.Event) {
	row := func(kind, attempt string) {
		rows = append(rows, rotation.Event{At: time.Now(), Kind: kind, Attempt: attempt})
	}
	if a := was.Attempt; a != nil && (is.Attempt == nil || is.Attempt.ID != a.ID) {
		row("ended", a.ID)
	}
	switch decided := is.Current != nil && (was.Current == nil || was.Current.Response != is.Current.Response); {
	case decided:
		row("decided", "")
	case was.Status != is.Status:
		row(map[rotation.Status]string{rotation.Pending: "registered", rotation.NeedsConsent: "needs_consent",
			rotation.Disconnected: "disconnected"}[is.Status], "")
	}
	return rows
}

func (s *story) begin(p token.Pair) {
	s.change(func(r *rotation.Record) {
		r.Attempt = &rotation.Attempt{ID: "attempt", Fingerprint: p.RefreshToken.Fingerprint(),
			Until: time.Now().Add(s.Settings.Lease)}
	})
}

func (s *story) present(p token.Pair) token.Pair {
	return s.Issuer.Parse(s.Issuer.Redeem(s.ctx, Sandbox, rotation.Grant{RefreshToken: p.RefreshToken}).Body).Pair
}

// successor is the response of what the parent was redeemed for.
func successor(parent token.Pair, epoch, generation int64) rotation.TokenResponse {
	m := response(epoch, generation, "attempt")
	m.Parent, m.SavedAt = parent.RefreshToken.Fingerprint(), time.Now()
	return m
}

func (s *story) save(m rotation.TokenResponse) { _ = s.Ledger.SaveResponse(s.ctx, m) }

// document is what the secret store shows of a pair.
func document(p token.Pair, epoch, generation int64) token.Secret {
	return must(token.Document{Connection: acme, AccessToken: p.AccessToken, ExpiresAt: time.Now().Add(p.Lifetime),
		Epoch: epoch, Generation: generation}.Encode())
}

func (s *story) decide(p token.Pair, epoch, generation int64) {
	s.change(func(r *rotation.Record) {
		r.Epoch, r.Generation, r.Status, r.Attempt = epoch, generation, rotation.Active, nil
		r.Current = &rotation.Current{Fingerprint: p.RefreshToken.Fingerprint(), VersionID: token.VersionID(document(p, epoch,
			generation)),
			Response: rotation.ResponseKey{Epoch: epoch, Generation: generation, Attempt: "attempt"}}
	})
}

func (s *story) publish(p token.Pair, epoch, generation int64) {
	value := document(p, epoch, generation)
	id := token.VersionID(value)
	err := s.SecretStore.Put(s.ctx, acme, id, value)
	if errors.Is(err, rotation.ErrNoSecret) {
		err = s.SecretStore.Create(s.ctx, acme, id, value)
	}
	err = errors.Join(err, s.SecretStore.Promote(s.ctx, acme, id, s.SecretStore.Label(acme, current)))
	if err != nil {
		panic(err)
	}
	s.change(func(r *rotation.Record) { r.Published = id })
}

func (s *story) exchange() token.Pair {
	code := s.Issuer.Authorize(rotation.Identity{}, Sandbox.RedirectURI, "")
	return s.Issuer.Parse(s.Issuer.Redeem(s.ctx, Sandbox, rotation.Grant{Code: code,
		RedirectURI: Sandbox.RedirectURI}).Body).Pair
}

func (s *story) connect(epoch int64) token.Pair {
	p := s.exchange()
	m := response(epoch, 0, "attempt")
	m.Source = rotation.FromCode
	s.save(m)
	s.decide(p, epoch, 0)
	s.publish(p, epoch, 0)
	return p
}

func (s *story) rotate(p token.Pair, epoch, generation int64) token.Pair {
	return s.rotateAs("attempt", p, epoch, generation)
}

func (s *story) rotateAs(attempt string, p token.Pair, epoch, generation int64) token.Pair {
	s.begin(p)
	s.change(func(r *rotation.Record) { r.Attempt.ID = attempt })
	next := s.present(p)
	m := successor(p, epoch, generation)
	m.Key.Attempt = attempt
	s.save(m)
	s.decide(next, epoch, generation)
	s.publish(next, epoch, generation)
	s.Issuer.Accepts(s.ctx, next.AccessToken)
	return next
}

// giveUp saves the answer to p and marks it, in these ways one after the other.
func (s *story) giveUp(p token.Pair, marks ...rotation.ResponseState) {
	s.begin(p)
	s.present(p)
	m := successor(p, 1, 1)
	s.save(m)
	for _, m.State = range marks {
		s.change(func(r *rotation.Record) { r.Attempt = nil }, m)
	}
}

func (s *story) waitOut() { time.Sleep(s.Settings.Lease + s.Settings.Quiet + time.Second) }

func (s *story) lose(when Moment) {
	s.Issuer.Gate = Nth(1, "issuer.Redeem", when, Fault{Kind: Fail})
}

func (s *story) needsConsent() {
	s.change(func(r *rotation.Record) { r.Attempt, r.Status = nil, rotation.NeedsConsent })
}

// ask presents a token that is refused, and writes that a consent is needed.
func (s *story) ask(p token.Pair) {
	s.begin(p)
	s.present(p)
	s.needsConsent()
}

// retry presents a refused token again, the given time after a consent was needed.
func (s *story) retry(p token.Pair, after time.Duration) token.Pair {
	time.Sleep(after)
	s.begin(p)
	return s.present(p)
}

// scheduled is the same story in a run that no person requested.
func (s *story) scheduled() *story { return &story{s.Harness, Scheduled(s.ctx)} }

// runOf is the same story in a run of the schedule.
func (s *story) runOf(steps func(*story)) {
	ctx, cancel := Within(Scheduled(s.ctx), 15*time.Minute)
	defer cancel()
	steps(&story{s.Harness, ctx})
}

// refuseOnce makes the issuer refuse once, by mistake.
func (s *story) refuseOnce() { s.Issuer.Personality.RefusesOnce = true }

// rejectConsent saves the first consent of is, for an invitation to asked, and rejects it.
func (s *story) rejectConsent(is, asked rotation.Identity) {
	s.change(func(r *rotation.Record) { r.Status = rotation.Pending })
	is.ClientID = Sandbox.ClientID
	code := s.Issuer.Authorize(is, Sandbox.RedirectURI, "")
	s.Issuer.Redeem(s.ctx, Sandbox, rotation.Grant{Code: code, RedirectURI: Sandbox.RedirectURI})
	s.reject(asked)
	s.Issuer.Wipe(s.ctx)
}

func (s *story) reject(asked rotation.Identity) {
	m := response(1, 0, "attempt")
	m.Source, m.Company, m.Expect = rotation.FromCode, asked.Company, &asked
	s.save(m)
	m.State = rotation.Rejected
	s.change(func(*rotation.Record) {}, m)
}
