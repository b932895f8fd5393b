package rotation_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Rules of the protocol that no other test is about (see removals_test.go).

func TestAConnectionKeepsItsIdentity(t *testing.T) {
	named := rotation.Identity{Company: "42"}
	other := rotation.Identity{Company: "43"}
	moved := rotation.Identity{Company: "43", Repin: true}
	tests := []struct {
		name      string
		connected rotation.Identity // what pat's first consent was asked for
		who       rotation.Identity
		expect    rotation.Identity
		want      rotation.ConsentResult
		company   string // pinned afterwards
	}{
		{"another user, no company", rotation.Identity{}, sam, rotation.Identity{}, rotation.WrongIdentity, ""},
		{"another user invited", rotation.Identity{}, sam, rotation.Identity{Repin: true}, rotation.Connected, ""},
		{"another company", named, at(pat, "43"), other, rotation.WrongIdentity, "42"},
		{"another company invited", named, at(pat, "43"), moved, rotation.Connected, "43"},
		{"no company, and one is pinned", named, pat, rotation.Identity{}, rotation.Connected, "42"},
		{"a login in other letters", named, pat, rotation.Identity{Login: "Pat@Example.COM"}, rotation.Connected, "42"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				if result, err := b.consent(t.Context(), pat, test.connected); result != rotation.Connected {
					t.Fatalf("the first consent: %s, %v", result, err)
				}
				b.deliver(t.Context())
				if result, err := b.consent(t.Context(), test.who, test.expect); result != test.want {
					t.Errorf("%s, %v; want %s", result, err, test.want)
				}
				b.deliver(t.Context())
				want := pat.ResourceOwner
				if test.want == rotation.Connected {
					want = test.who.ResourceOwner
				}
				if pin := b.record(t).Pin; pin == nil || pin.ResourceOwner != want || pin.Company != test.company {
					t.Errorf("it belongs to %+v, want user %s and company %q", pin, want, test.company)
				}
				if err := b.works(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// The row names a token by its fingerprint; a stored pair that is another one is
// damage, and not presented.
func TestAPairThatTheLedgerDoesNotNameIsNotPresented(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		rec := b.record(t)
		rec.Current.Fingerprint = token.NewSecret("another").Fingerprint()
		_, err := b.Ledger.Write(t.Context(), rotation.Change{Record: rec})
		must(t, err)
		if report := b.rotate(t); report.Outcome != rotation.Deferred || len(b.presentations()) != 0 {
			t.Errorf("%+v, %d tokens presented", report, len(b.presentations()))
		}
	})
}

// impatientCaller gives up while its POST is in flight.
type impatientCaller struct {
	rotation.Issuer
	giveUp context.CancelFunc
}

func (i impatientCaller) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	answer := i.Issuer.Redeem(ctx, app, grant)
	i.giveUp()
	if ctx.Err() != nil {
		return rotation.Answer{Class: rotation.UnknownResult, Detail: ctx.Err().Error()}
	}
	return answer
}

func TestACallerThatGivesUpLosesNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		ctx, cancel := context.WithCancel(t.Context())
		b.issuer = impatientCaller{b.Issuer, cancel}
		if result, err := b.consent(ctx, pat, rotation.Identity{}); result == rotation.Lost {
			t.Errorf("the consent: %s, %v", result, err)
		}
		b.issuer = nil
		time.Sleep(5 * time.Minute)
		b.sweep(t)
		if err := b.works(t.Context()); err != nil {
			t.Fatalf("after the consent: %v\n%s", err, b.Journal)
		}
		ctx, cancel = context.WithCancel(t.Context())
		b.issuer = impatientCaller{b.Issuer, cancel}
		_, err := b.rotator().Rotate(ctx, acme)
		must(t, err)
		b.issuer = nil
		time.Sleep(5 * time.Minute)
		b.sweep(t)
		if err := b.works(t.Context()); err != nil {
			t.Errorf("after the rotation: %v\n%s", err, b.Journal)
		}
	})
}

// Between Begin and the POST the run's time may have run out.
func TestNothingIsPresentedWithoutTimeToSaveTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &faultScenario{harness: newHarness(rotationtest.Personality{}), t: t}
		m.connect(t)
		time.Sleep(time.Hour)
		m.nth(begin, "ledger.Write", before, slow(3*time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), m.settings.RedeemTimeout+17*time.Second)
		defer cancel()
		report, err := m.rotator().Rotate(ctx, acme)
		must(t, err)
		if report.Outcomes[rotation.Deferred] != 1 || len(m.presentations()) != 0 || m.record(t).Attempt != nil {
			t.Errorf("%+v, %d tokens presented, attempt %+v", report.Connections, len(m.presentations()), m.record(t).Attempt)
		}
	})
}

// throttledLate answers its first refresh, after lease and quiet period, with 429,
// while the next one is in flight.
type throttledLate struct {
	rotation.Issuer
	calls     *atomic.Int32
	wait      time.Duration
	inFlight  func()
	throttled chan struct{}
}

func (i throttledLate) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	if i.calls.Add(1) == 1 {
		time.Sleep(i.wait)
		return rotation.Answer{Class: rotation.RateLimited, Detail: "HTTP 429"}
	}
	<-i.throttled
	i.inFlight()
	return i.Issuer.Redeem(ctx, app, grant)
}

func TestAnAttemptIsEndedByItsHolderOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(time.Hour)
		over := b.settings.Lease + b.settings.Quiet
		looked, throttled := false, make(chan struct{})
		b.issuer = throttledLate{b.Issuer, new(atomic.Int32), over + 5*time.Second, func() {
			if a := b.record(t).Attempt; a == nil || !time.Now().Before(a.Until) {
				t.Errorf("another run has ended the attempt of the POST that is in flight: %+v", a)
			}
			looked = true
		}, throttled}
		go func() {
			defer close(throttled)
			_, _ = b.rotator().Rotate(t.Context(), acme)
		}()
		time.Sleep(over + time.Second)
		b.sweep(t)
		if err := b.works(t.Context()); err != nil || !looked {
			t.Errorf("%v, second POST %t\n%s", err, looked, b.Journal)
		}
	})
}

// A response that was saved late, of a pair that others have followed since, is of
// the same grant, which some servers end with any pair of it.
func TestAPredecessorThatComesBackIsNotRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{RevokesFamily: true})
		b.connect(t)
		_, responses, err := b.Ledger.Load(t.Context(), acme)
		must(t, err)
		b.rotate(t)
		b.rotate(t)
		must(t, b.Ledger.SaveResponse(t.Context(), responses[0]))
		time.Sleep(time.Hour)
		b.sweep(t)
		if err := b.works(t.Context()); err != nil {
			t.Errorf("%v\n%s", err, b.Journal)
		}
	})
}

// repeatingCode answers a second code with the pair of the first one.
type repeatingCode struct {
	rotation.Issuer
	first *rotation.Answer
}

func (r repeatingCode) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	if r.first.Class == "" {
		*r.first = r.Issuer.Redeem(ctx, app, grant)
	}
	return *r.first
}

func TestAConsentThatBringsTheSamePairIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.issuer = repeatingCode{b.Issuer, &rotation.Answer{}}
		b.connect(t)
		if result, err := b.consent(t.Context(), pat, rotation.Identity{Company: "42"}); result != rotation.Connected {
			t.Fatalf("%s, %v", result, err)
		}
		b.issuer = nil
		b.deliver(t.Context())
		time.Sleep(time.Hour)
		b.sweep(t)
		if err := b.works(t.Context()); err != nil {
			t.Errorf("%v\n%s", err, b.Journal)
		}
	})
}

// Escrow of the current epoch is of the same grant, too, however old it is.
func TestASearchLeavesTheCurrentEpochAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &faultScenario{harness: newHarness(rotationtest.Personality{RevokesFamily: true}), t: t}
		m.connect(t)
		time.Sleep(time.Hour)
		m.downAfter(1, "issuer.Redeem", "ledger.").rotate()
		m.calm()
		for range 8 {
			time.Sleep(time.Hour)
			m.sweep()
		}
		_, err := m.consents().Prepare(t.Context(), acme, m.record(t).Epoch) // and then the person denies
		must(t, err)
		time.Sleep(time.Hour)
		m.sweep()
		if err := m.works(t.Context()); err != nil || !m.record(t).SearchAt.IsZero() {
			t.Errorf("%v, search at %v\n%s", err, m.record(t).SearchAt, m.Journal)
		}
	})
}

// A response that is moved in the store cannot be opened in its new place.
func TestSealedBytesStayWhereTheyBelong(t *testing.T) {
	moved := map[string]func(*rotation.TokenResponse){
		"connection": func(m *rotation.TokenResponse) { m.Connection.Name = "other" },
		"epoch":      func(m *rotation.TokenResponse) { m.Key.Epoch++ },
		"generation": func(m *rotation.TokenResponse) { m.Key.Generation++ },
	}
	for what, move := range moved {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				b.connect(t)
				time.Sleep(10 * time.Minute)
				_, responses, err := b.Ledger.Load(t.Context(), acme)
				must(t, err)
				rec, m := b.record(t), responses[0]
				move(&m)
				rec.Connection, rec.Epoch, rec.Generation = m.Connection, m.Key.Epoch, m.Key.Generation
				rec.Published, rec.Revision = "", ""
				if m.Connection == acme {
					rec.Revision = b.record(t).Revision
				}
				rec.Current.Response = m.Key
				_, err = b.Ledger.Write(t.Context(), rotation.Change{Record: rec, Copy: []rotation.TokenResponse{m}})
				must(t, err)
				report, err := b.rotator().Rotate(t.Context(), m.Connection)
				must(t, err)
				got := report.Connections[0]
				named := strings.Contains(got.Detail, "cannot be opened")
				if got.Outcome != rotation.ConfigError || !named || len(b.presentations()) != 0 {
					t.Errorf("%s: %s; %d tokens presented", got.Outcome, got.Detail, len(b.presentations()))
				}
			})
		})
	}
}

// A row that is due with nothing to do would stay at the head of the list.
func TestADueTimeThatHasPassedIsSetAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		rec := b.record(t)
		want := rec.DueAt
		rec.DueAt = time.Now().Add(-time.Hour)
		_, err := b.Ledger.Write(t.Context(), rotation.Change{Record: rec})
		must(t, err)
		if report := b.sweep(t); report.Outcomes[rotation.Fresh] != 1 || !b.record(t).DueAt.Equal(want) {
			t.Errorf("%v, due at %v; want %v", report.Outcomes, b.record(t).DueAt, want)
		}
	})
}

func TestAHopThatCannotBeSentIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		b.gate(rotationtest.Always("followups.Send", before, fail))
		_, err := b.rotator().Do(t.Context(), rotation.Request{Op: "ensure", Connection: acme.String(), MinTTLSeconds: 600,
			Epoch: 1, NotBefore: time.Now().Add(time.Hour)})
		if !errors.Is(err, rotation.ErrNotHandedOn) {
			t.Errorf("%v; want that the message is to be delivered again", err)
		}
	})
}

// The owner of an imported token may not be known yet. The connection is still not free for
// another import.
func TestAnImportDoesNotReplaceAnActiveConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		_, err := rotation.Register(t.Context(), b.Ledger, b.SecretStore, b.settings.Stack, acme)
		must(t, err)
		b.gate(rotationtest.Always("issuer.Identify", before, fail))
		importer.act(t.Context(), b)
		b.sweep(t)
		if rec := b.record(t); rec.Status != rotation.Active || rec.Generation != 1 || rec.Pin.ResourceOwner != "" {
			t.Fatalf("%+v", rec)
		}
		err = b.consents().Import(t.Context(), acme, token.NewSecret("another"), "42")
		if !errors.Is(err, rotation.ErrConnected) {
			t.Errorf("importing over it: %v", err)
		}
	})
}

// answering gives every refresh the same answer.
type answering struct {
	rotation.Issuer
	answer rotation.Answer
}

func (a answering) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	if !grant.Code.IsZero() {
		return a.Issuer.Redeem(ctx, app, grant)
	}
	return a.answer
}

// counting counts refreshes.
type counting struct {
	rotation.Issuer
	n *int
}

func (c counting) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	*c.n++
	return c.Issuer.Redeem(ctx, app, grant)
}

func TestThreeFaultyRequestsOpenTheCircuitBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.settings.Concurrency = 1
		names := connectMany(t, b, 6)
		time.Sleep(time.Hour)
		presented := 0
		faulty := answering{b.Issuer, rotation.Answer{Class: rotation.RequestFault, Detail: "invalid_request"}}
		r := b.rotatorWith(counting{faulty, &presented})
		report, err := r.Sweep(t.Context())
		must(t, err)
		if presented != 3 || report.Outcomes[rotation.ConfigError] != len(names) {
			t.Errorf("%d tokens were presented, want 3; %v", presented, report.Outcomes)
		}
	})
}

func TestAServersWaitIsBounded(t *testing.T) {
	for _, class := range []rotation.Class{rotation.RateLimited, rotation.UnknownResult} {
		t.Run(string(class), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newHarness(rotationtest.Personality{})
				b.connect(t)
				time.Sleep(time.Hour)
				answer := rotation.Answer{Class: class, Wait: 200 * 365 * 24 * time.Hour, Detail: "HTTP 429"}
				_, err := b.rotatorWith(answering{b.Issuer, answer}).Sweep(t.Context())
				must(t, err)
				time.Sleep(14 * time.Minute)
				presented := b.presentations()
				if b.sweep(t); !maps.Equal(b.presentations(), presented) {
					t.Error("the token was presented before the longest wait was over")
				}
				time.Sleep(time.Minute + time.Second)
				b.sweep(t)
				if err := b.works(t.Context()); err != nil {
					t.Errorf("%v\n%s", err, b.Journal)
				}
			})
		})
	}
}

// Only the schedule and a person's rotate present a refused token.
func TestNobodyElsePresentsARefusedToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(time.Hour)
		doc, err := b.read(t.Context())
		must(t, err)
		b.Issuer.Withdraw(t.Context(), doc.AccessToken)
		b.sweep(t)
		refused := b.record(t)
		if refused.Status != rotation.NeedsConsent {
			t.Fatalf("status %s", refused.Status)
		}
		time.Sleep(20 * time.Minute)
		for _, request := range []rotation.Request{{Op: "publish"}, {Op: "ensure", MinTTLSeconds: 60}} {
			request.Connection = acme.String()
			report, err := b.rotator().Do(t.Context(), request)
			must(t, err)
			if n := b.presentations()[refused.Current.Fingerprint]; n != 1 || report.Outcomes[rotation.ConsentNeeded] != 1 {
				t.Errorf("after %s it was presented %d times; %v", request.Op, n, report.Outcomes)
			}
		}
		b.sweep(t)
		if n := b.presentations()[refused.Current.Fingerprint]; n != 2 {
			t.Errorf("after the sweep that its time has come for it was presented %d times", n)
		}
	})
}

// A refused token is tried four times. A try that does not reach the server does not count.
func TestATryThatSpentNothingIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(time.Hour)
		refused := rotation.Answer{Class: rotation.Refused, Detail: "invalid_grant"}
		_, err := b.rotatorWith(answering{b.Issuer, refused}).Sweep(t.Context())
		must(t, err)
		b.gate(rotationtest.Always("issuer.Redeem", before, unsent))
		b.operation(t).run(72 * time.Hour)
		b.gate(nil)
		b.operation(t).run(25 * time.Hour)
		if err := b.works(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// salvaging judges every answer as salvaged.
type salvaging struct{ rotation.Issuer }

func (s salvaging) Parse(body token.Secret) rotation.Judgement {
	j := s.Issuer.Parse(body)
	if j.Verdict == rotation.Sound {
		j.Verdict, j.Reason = rotation.Salvaged, "two documents in one body"
	}
	return j
}

func TestASalvagedTokenIsANotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		_, err := b.rotatorWith(salvaging{b.Issuer}).Rotate(t.Context(), acme)
		must(t, err)
		if kinds := b.notices(); !slices.Equal(kinds, []string{rotation.NoticeSalvaged}) {
			t.Errorf("people were notified of %v", kinds)
		}
		if err := b.works(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A consent and what it was refreshed to are one grant, which some servers end with
// any pair of it.
func TestAConsentIsNotRevokedAfterItsRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{RevokesFamily: true})
		b.unverified(t, pat, nil)
		b.operation(t).run(2 * time.Hour)
		b.gate(nil)
		b.operation(t).run(2 * time.Hour)
		b.presentedOnce(t)
		b.inOrder(t)
	})
}

// A server that answers a second consent with the pair of the first one.
func TestACopyOfOurOwnPairIsNotPresentedAsAConsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(family)
		b.issuer = repeatingCode{b.Issuer, &rotation.Answer{}}
		b.connect(t)
		b.unverified(t, pat, nil)
		b.issuer = nil
		b.operation(t).run(3 * time.Hour)
		b.gate(nil)
		b.operation(t).run(3 * time.Hour)
		b.presentedOnce(t)
		b.inOrder(t)
	})
}

// If the secret store does not take a pair, only the run that obtained it and the sweeps
// try to publish it.
func TestWhoDidNotBringThePairDoesNotPersistInPublishingIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &faultScenario{harness: newHarness(rotationtest.Personality{}), t: t}
		m.connect(t)
		time.Sleep(time.Hour)
		m.nth(decide, "ledger.Write", after, crash).rotate()
		m.calm().down("secrets.Put")
		time.Sleep(5 * time.Minute)
		started := time.Now()
		if outcome := m.sweep(); outcome != rotation.Deferred || time.Since(started) > 10*time.Second {
			t.Errorf("%s, after %v", outcome, time.Since(started))
		}
		m.calm().operation(t).run(10 * time.Minute)
		m.inOrder(t)
	})
}

// The secret store keeps versions for a while after their label has moved on.
func TestEscrowIsFoundWhateverWasPutSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &faultScenario{harness: newHarness(rotationtest.Personality{}), t: t}
		m.connect(t)
		time.Sleep(time.Hour)
		m.downAfter(1, "issuer.Redeem", "ledger.").rotate()
		m.calm()
		must(t, m.SecretStore.Put(t.Context(), acme, strings.Repeat("a", 32), token.NewSecret("by hand")))
		time.Sleep(time.Hour)
		if outcome := m.sweep(); outcome != rotation.Recovered {
			t.Errorf("%s", outcome)
		}
		m.presentedOnce(t)
		if counted := len(m.record(t).Puts); counted != 4 {
			t.Errorf("%d puts are counted, want those of three pairs and of the escrow\n%s", counted, m.Journal)
		}
		if err := m.works(t.Context()); err != nil {
			t.Errorf("%v\n%s", err, m.Journal)
		}
	})
}

// A ledger that was restored may have a saved successor that was decided since.
func TestWhatTheSecretStoreHasSucceededIsNotRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &faultScenario{harness: newHarness(rotationtest.Personality{RevokesFamily: true}), t: t}
		m.connect(t)
		time.Sleep(time.Hour)
		m.first("ledger.SaveResponse", after, crash).rotate()
		m.calm()
		restore := m.Ledger.Backup()
		for range 3 {
			time.Sleep(time.Hour)
			m.sweep()
		}
		restore()
		m.operation(t).run(2 * time.Hour)
		m.presentedOnce(t)
		m.inOrder(t)
	})
}

// arriving shows no escrow until the next refresh is presented.
type arriving struct {
	rotation.SecretStore
	shown *bool
}

func (a arriving) Versions(ctx context.Context, c token.Connection) ([]rotation.VersionInfo, error) {
	versions, err := a.SecretStore.Versions(ctx, c)
	if !*a.shown {
		versions = slices.DeleteFunc(versions, func(v rotation.VersionInfo) bool {
			return strings.HasPrefix(v.ID, "escrow-")
		})
	}
	return versions, err
}

type arrivingWith struct {
	rotation.Issuer
	shown *bool
}

func (a arrivingWith) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	*a.shown = true
	return a.Issuer.Redeem(ctx, app, grant)
}

// An answer that reaches the secret store while its token is presented again is
// found before a consent is requested.
func TestASuccessorThatArrivesBesideARefusalIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &faultScenario{harness: newHarness(rotationtest.Personality{}), t: t}
		m.connect(t)
		time.Sleep(time.Hour)
		m.downAfter(1, "issuer.Redeem", "ledger.").rotate()
		m.calm()
		time.Sleep(time.Hour)
		shown := false
		r := m.rotatorBut(func(cfg *rotation.Config) {
			cfg.SecretStore, cfg.Issuer = arriving{m.SecretStore, &shown}, arrivingWith{m.Issuer, &shown}
		})
		report, err := r.Sweep(t.Context())
		must(t, err)
		if err := m.works(t.Context()); err != nil || !shown || slices.Contains(m.notices(), rotation.NoticeNeedsConsent) {
			t.Errorf("%v, %v, people were notified of %v\n%s", report.Outcomes, err, m.notices(), m.Journal)
		}
	})
}

// A waiting consent's refresh token is presented under an attempt, like any other.
func TestAWaitingConsentIsRefreshedByOneRun(t *testing.T) {
	tests := []struct {
		name  string
		when  rotationtest.Moment
		fault rotationtest.Fault
		apart time.Duration // of two sweeps
		want  int           // presentations, until then
	}{
		{"while the POST is in flight", before, slow(10 * time.Second), 2 * time.Second, 1},
		{"in the quiet period after a lost answer", after, fail, 170 * time.Second, 1},
		{"after it", after, fail, 181 * time.Second, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &faultScenario{harness: newHarness(overlap), t: t}
				m.unverified(t, pat, nil)
				time.Sleep(3 * time.Hour)
				m.calm().first("issuer.Redeem", test.when, test.fault)
				done := make(chan struct{})
				go func() {
					defer close(done)
					m.sweep()
				}()
				time.Sleep(test.apart)
				if _, err := m.rotator().Publish(t.Context(), acme); err != nil {
					t.Error(err)
				}
				m.sweep()
				if n := m.mostShown(); n != test.want {
					t.Errorf("presented %d times, want %d", n, test.want)
				}
				<-done
				m.calm().operation(t).run(2 * time.Hour)
				m.inOrder(t)
			})
		})
	}
}

// A token that may have expired proves nothing about the consent, even if its lifetime is
// not known.
func TestAConsentOfUnknownLifetimeIsNotDiscardedForWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.issuer = withoutLifetime(b.Issuer)
		b.unverified(t, pat, nil)
		b.operation(t).run(3 * time.Hour)
		b.gate(nil)
		b.operation(t).run(time.Hour)
		if rec := b.record(t); rec.Status != rotation.Active || rec.Epoch != 1 || b.noticesOf(rotation.NoticeRejected) != 0 {
			t.Errorf("%s, epoch %d, people were notified of %v", rec.Status, rec.Epoch, b.notices())
		}
		b.presentedOnce(t)
	})
}

// notInstalled refuses everyone until an administrator has installed the app.
type notInstalled struct{ rotation.Issuer }

func (n notInstalled) Identify(ctx context.Context, app rotation.Application, access token.Secret,
	company string) (rotation.Identity, error) {
	id, err := n.Issuer.Identify(ctx, app, access, company)
	if err == nil {
		id.Company, err = "", rotation.ErrAppNotInstalled
	}
	return id, err
}

func TestAnAppThatIsNotInstalledIsOneNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.issuer = notInstalled{b.Issuer}
		if result, err := b.consent(t.Context(), pat, rotation.Identity{Company: "42"}); result != rotation.NotInstalled {
			t.Fatalf("%s, %v", result, err)
		}
		b.operation(t).run(time.Hour)
		if kinds := b.notices(); !slices.Equal(kinds, []string{rotation.NoticeAppNotInstalled}) {
			t.Errorf("people were notified of %v", kinds)
		}
		b.issuer = nil
		b.operation(t).run(time.Hour)
		b.inOrder(t)
	})
}

// A version of the secret has no room for it.
func TestALargeAnswerIsNotPutIntoTheSecretStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &faultScenario{harness: newHarness(rotationtest.Personality{}), t: t}
		m.connect(t)
		time.Sleep(time.Hour)
		m.downAfter(1, "issuer.Redeem", "ledger.").meets(withHugeAnswers(m.Issuer))
		go func() {
			time.Sleep(time.Minute)
			m.calm()
		}()
		m.rotate()
		if n := m.answers(); n != 1 {
			t.Errorf("%d answers were saved in the ledger, want 1", n)
		}
		versions, err := m.SecretStore.Versions(t.Context(), acme)
		must(t, err)
		if len(versions) != 1 {
			t.Errorf("%d versions, want the published pair's only", len(versions))
		}
	})
}

// After a run that died in its POST, a sweep comes before the next scheduled one.
func TestARunThatDiesIsRecoveredWithinMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &faultScenario{harness: newHarness(overlap), t: t}
		m.connect(t)
		time.Sleep(time.Hour)
		m.first("issuer.Redeem", after, crash).rotate()
		m.calm()
		for range 5 {
			time.Sleep(time.Minute)
			m.deliver(t.Context())
		}
		if err := m.works(t.Context()); err != nil || m.record(t).Generation != 1 {
			t.Errorf("%v\n%s", err, m.Journal)
		}
	})
}
