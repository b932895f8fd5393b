package rotation_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// A pair that a process has saved with its clock three hours ahead, and could not
// publish, is published by the next process that looks, not in three hours.
func TestAPairSavedByAClockAheadIsPublishedByOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(10 * time.Minute)
		b.gate(breakdown(forever, fail, "secrets.Put"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		must1(b.skewed(3*time.Hour).Rotate(ctx, acme))
		cancel()
		b.gate(nil)
		time.Sleep(2 * time.Minute)
		request := rotation.Request{Op: "ensure", Connection: acme.String(), MinTTLSeconds: 600}
		report := must1(b.rotator().Do(t.Context(), request))
		if rec := b.record(t); rec.Published != rec.Current.VersionID {
			t.Errorf("the pair is not published: %s until %v", report.Connections[0].Outcome, report.Connections[0].RetryAt)
		}
	})
}

// A consent that waited is not taken for another one's by a process with its clock
// behind: a server that refuses its access token then says nothing but its age.
func TestAConsentIsCheckedByAClockBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.unverified(t, pat, nil)
		time.Sleep(95 * time.Minute)
		b.gate(nil)
		must1(b.skewed(-3*time.Hour).Rotate(t.Context(), acme))
		b.operation(t).run(time.Hour)
		if rec := b.record(t); rec.Status != rotation.Active || b.noticesOf(rotation.NoticeRejected) > 0 {
			t.Errorf("the connection is %s; people were notified of %v", rec.Status, b.notices())
		}
	})
}

// A follow-up sweep by a process with its clock ahead keeps no other from working.
func TestAFollowUpSweepByAClockAheadHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(10 * time.Minute)
		followUp := rotation.Request{Op: "sweep", FollowUp: true}
		must1(b.skewed(3*time.Hour).Do(t.Context(), followUp))
		time.Sleep(time.Minute)
		if report := must1(b.rotator().Do(t.Context(), followUp)); report.Skipped {
			t.Error("it leaves the work to a sweep that is over")
		}
		if report := must1(b.rotator().Do(t.Context(), followUp)); !report.Skipped {
			t.Error("two follow-up sweeps work at once")
		}
	})
}

// Of a login host that cannot be reached a waiting consent has nothing to expect, and
// the saved pair is published all the same.
func TestAConsentThatWaitsForTheServerHidesNoPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		names := b.connectIn(t, "sandbox", 3)
		time.Sleep(10 * time.Minute)
		b.unverified(t, pat, nil)
		time.Sleep(95 * time.Minute)
		b.gate(breakdown(forever, fail, "issuer.Identify", "secrets.Put"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		must1(b.rotator().Rotate(ctx, acme))
		cancel()
		time.Sleep(91 * time.Minute)
		unsent := rotationtest.Fault{Kind: rotationtest.Unsent}
		b.gate(breakdown(forever, unsent, "issuer.Identify", "issuer.Redeem"))
		b.settings.Concurrency = 1
		b.rotator().RotateAll(t.Context(), append(append([]token.Connection{}, names...), acme), nil)
		if rec := b.record(t); rec.Published != rec.Current.VersionID {
			t.Errorf("the secret shows %q and not %q", rec.Published, rec.Current.VersionID)
		}
	})
}

// A wrong client secret is one notice, also where a consent waits; both waits say which
// app is to blame, so that they end with it.
func TestAWaitingConsentAndAWrongSecretAreOneNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		time.Sleep(10 * time.Minute)
		b.unverified(t, pat, nil)
		time.Sleep(95 * time.Minute)
		forgeSecret(b)
		b.operation(t).run(90 * time.Minute)
		if n := b.noticesOf(rotation.NoticeConfigError); n != 1 {
			t.Errorf("people were notified %d times: %v", n, b.notices())
		}
		for _, f := range b.record(t).Failures {
			if f.Cause == "" {
				t.Errorf("nobody knows when the wait of %s ends: %+v", f.Step, f)
			}
		}
	})
}

// What the secret store holds is searched again soon after a refusal where it could not
// be read at once, not when the attempt's time is over.
func TestARefusalIsSearchedForAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		withdrawer.act(t.Context(), b)
		b.gate(onceAfter("issuer.Redeem", 20*time.Second, "secrets.Current"))
		time.Sleep(time.Hour)
		from := time.Now()
		must1(b.rotator().Rotate(t.Context(), acme))
		time.Sleep(31 * time.Second)
		must1(b.rotator().Rotate(t.Context(), acme))
		if rec := b.record(t); rec.Status != rotation.NeedsConsent {
			t.Errorf("%v after the refusal it is %s", time.Since(from), rec.Status)
		}
	})
}

// onceAfter lets calls fail for a while once another call has been answered.
func onceAfter(first string, d time.Duration, calls ...string) rotationtest.Gate {
	var until time.Time
	return func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
		if at.Call == first && at.When == after && until.IsZero() {
			until = time.Now().Add(d)
		}
		for _, call := range calls {
			if at.When == before && at.Call == call && time.Now().Before(until) {
				return fail
			}
		}
		return rotationtest.Fault{}
	}
}

// A repetition of a refused token that gets no answer is made again soon. It does not
// use up one of the four.
func TestAnUnansweredRepetitionIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{RefusesOnce: true})
		b.connect(t)
		time.Sleep(time.Hour)
		b.gate(rotationtest.Nth(2, "issuer.Redeem", before, fail))
		o := b.operation(t)
		must1(b.rotator().Sweep(t.Context()))
		o.run(50 * time.Minute)
		if rec := b.record(t); rec.Status != rotation.Active {
			t.Errorf("after 50 minutes it is %s, and the next try is at %v", rec.Status, rec.Refusal.NextAt)
		}
	})
}

// A row that has lost its current pair can be disconnected.
func TestADamagedRowIsDisconnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newHarness(rotationtest.Personality{})
		b.connect(t)
		b.rewrite(func(r *rotation.Record) rotation.Change { r.Current = nil; return rotation.Change{} })
		must1(b.rotator().Disconnect(t.Context(), acme))
		if rec := b.record(t); rec.Status != rotation.Disconnected {
			t.Errorf("it is %s", rec.Status)
		}
	})
}
