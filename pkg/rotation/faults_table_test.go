package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Notices, for short.
const (
	needsConsentNotice = rotation.NoticeNeedsConsent
	recoveredNotice    = rotation.NoticeRecovered
	unknownNotice      = rotation.NoticeUnknown
	configNotice       = rotation.NoticeConfigError
	quarantinedNotice  = rotation.NoticeQuarantined
	rejectedNotice     = rotation.NoticeRejected
	salvagedNotice     = rotation.NoticeSalvaged
	driftNotice        = rotation.NoticeDrift
	unsavedNotice      = rotation.NoticeUnsaved
)

var faults = []fault{
	// A process dies at each boundary of a rotation.
	{name: "crash before Begin's write", outcome: crashed,
		happens: func(m *faultScenario) rotation.Outcome { return m.nth(begin, "ledger.Write", before, crash).rotate() }},
	{name: "crash after Begin's write, before the POST", outcome: crashed,
		happens: func(m *faultScenario) rotation.Outcome { return m.nth(begin, "ledger.Write", after, crash).rotate() }},
	{name: "crash in the POST, which never arrives", outcome: crashed, shown: 2,
		happens: func(m *faultScenario) rotation.Outcome { return m.first("issuer.Redeem", before, crash).rotate() }},
	{name: "crash in the POST, which has arrived (W1)", outcome: crashed, shown: 3, notices: []string{needsConsentNotice},
		status:  rotation.NeedsConsent,
		happens: func(m *faultScenario) rotation.Outcome { return m.first("issuer.Redeem", after, crash).rotate() }},
	{name: "crash in the POST, on a server that overlaps", server: overlap, outcome: crashed, shown: 2,
		happens: func(m *faultScenario) rotation.Outcome { return m.first("issuer.Redeem", after, crash).rotate() }},
	{name: "crash with the answer in memory (W2)", outcome: crashed, shown: 3, notices: []string{needsConsentNotice},
		status:  rotation.NeedsConsent,
		happens: func(m *faultScenario) rotation.Outcome { return m.first("ledger.SaveResponse", before, crash).rotate() }},
	{name: "crash with the answer in memory, on a server that ends the family", server: family, outcome: crashed, shown: 3,
		notices: []string{needsConsentNotice}, status: rotation.NeedsConsent,
		happens: func(m *faultScenario) rotation.Outcome { return m.first("ledger.SaveResponse", before, crash).rotate() }},
	{name: "crash after Save", outcome: crashed, notices: []string{recoveredNotice},
		happens: func(m *faultScenario) rotation.Outcome { return m.first("ledger.SaveResponse", after, crash).rotate() }},
	{name: "crash after saving in the secret store only", outcome: crashed, notices: []string{recoveredNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			return m.first("ledger.SaveResponse", before, fail).first("secrets.Put", after, crash).rotate()
		}},
	{name: "crash before Decide's write", outcome: crashed, notices: []string{recoveredNotice},
		happens: func(m *faultScenario) rotation.Outcome { return m.nth(decide, "ledger.Write", before, crash).rotate() }},
	{name: "crash after Decide's write", outcome: crashed,
		happens: func(m *faultScenario) rotation.Outcome { return m.nth(decide, "ledger.Write", after, crash).rotate() }},
	{name: "crash before the put", outcome: crashed,
		happens: func(m *faultScenario) rotation.Outcome { return m.first("secrets.Put", before, crash).rotate() }},
	{name: "crash between put and promote", outcome: crashed,
		happens: func(m *faultScenario) rotation.Outcome { return m.first("secrets.Put", after, crash).rotate() }},
	{name: "crash after the promote", outcome: crashed,
		happens: func(m *faultScenario) rotation.Outcome { return m.first("secrets.Promote", after, crash).rotate() }},
	{name: "crash after Publish's write", outcome: crashed,
		happens: func(m *faultScenario) rotation.Outcome { return m.nth(publish, "ledger.Write", after, crash).rotate() }},

	// A call takes effect, and its answer is lost.
	{name: "the answer to Begin's write is lost", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome { return m.nth(begin, "ledger.Write", after, fail).rotate() }},
	{name: "the answer to the POST is lost (W1)", outcome: rotation.Unknown, shown: 3, notices: []string{unknownNotice,
		needsConsentNotice}, status: rotation.NeedsConsent,
		happens: func(m *faultScenario) rotation.Outcome { return m.first("issuer.Redeem", after, fail).rotate() }},
	{name: "the answer to the POST is lost, on a server that overlaps", server: overlap, outcome: rotation.Unknown,
		shown: 2, notices: []string{unknownNotice},
		happens: func(m *faultScenario) rotation.Outcome { return m.first("issuer.Redeem", after, fail).rotate() }},
	{name: "the answer to Save is lost", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome { return m.first("ledger.SaveResponse", after, fail).rotate() }},
	{name: "the answer to Decide's write is lost", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome { return m.nth(decide, "ledger.Write", after, fail).rotate() }},
	{name: "the answer to the put is lost", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome { return m.first("secrets.Put", after, fail).rotate() }},
	{name: "the answer to the promote is lost", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome { return m.first("secrets.Promote", after, fail).rotate() }},
	{name: "the answer to Publish's write is lost", outcome: rotation.Failed,
		happens: func(m *faultScenario) rotation.Outcome { return m.nth(publish, "ledger.Write", after, fail).rotate() }},

	// A service is down.
	{name: "Secrets Manager is down before the POST", outcome: rotation.Deferred,
		happens: func(m *faultScenario) rotation.Outcome { return m.unspent(m.down("secrets.").rotate) }},
	{name: "Secrets Manager goes down during the POST", outcome: rotation.Deferred,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.downAfter(1, "issuer.Redeem", "secrets.").rotate()
		}},
	{name: "DynamoDB is down before the POST", outcome: rotation.Failed,
		happens: func(m *faultScenario) rotation.Outcome { return m.unspent(m.down("ledger.").rotate) }},
	{name: "DynamoDB goes down during the POST", outcome: rotation.Failed, notices: []string{recoveredNotice},
		happens: func(m *faultScenario) rotation.Outcome { return m.downAfter(1, "issuer.Redeem", "ledger.").rotate() }},
	{name: "DynamoDB takes reads only from the POST on", outcome: rotation.Failed, notices: []string{recoveredNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			return m.downAfter(1, "issuer.Redeem", "ledger.Write", "ledger.SaveResponse").rotate()
		}},
	{name: "both stores go down during the POST and stay down (W3)", outcome: rotation.Unknown, shown: 3,
		notices: []string{unsavedNotice, needsConsentNotice}, status: rotation.NeedsConsent,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.downAfter(1, "issuer.Redeem", "ledger.", "secrets.").rotate()
		}},
	{name: "both stores go down during the POST for a minute", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome {
			m.downAfter(1, "issuer.Redeem", "ledger.", "secrets.").during(1, "issuer.Redeem", after, func() {
				go func() { time.Sleep(time.Minute); m.calm() }()
			})
			return m.rotate()
		}},
	{name: "a store hangs while the answer is to be saved", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.first("ledger.SaveResponse", before, slow(20*time.Minute)).rotate()
		}},
	{name: "KMS is down before the POST", outcome: rotation.Deferred,
		happens: func(m *faultScenario) rotation.Outcome { return m.unspent(m.down("sealer.").rotate) }},
	{name: "KMS goes down during the POST", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome { return m.downAfter(1, "issuer.Redeem", "sealer.").rotate() }},
	{name: "KMS is down when a saved answer is found", outcome: rotation.Deferred, notices: []string{recoveredNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			m.first("ledger.SaveResponse", after, crash).rotate()
			time.Sleep(5 * time.Minute)
			return m.calm().down("sealer.").rotate()
		}},
	{name: "the app credentials cannot be read", outcome: rotation.Deferred,
		happens: func(m *faultScenario) rotation.Outcome { return m.unspent(m.down("applications.").rotate) }},
	{name: "the queue, the topic and the shared rate limiter are down", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.down("followups.", "notifier.",
				"ratelimiter.").rotate()
		}},
	{name: "the provider fails for a day", outcome: rotation.Unknown, notices: []string{unknownNotice}, shown: 25,
		happens: func(m *faultScenario) rotation.Outcome { return m.down("issuer.").hourly(24) }},
	{name: "the provider cannot be reached for a day", outcome: rotation.Deferred, shown: 25,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.through(rotationtest.Always("issuer.Redeem", before, unsent)).hourly(24)
		}},
	{name: "the schedule does not fire for a day", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome { time.Sleep(24 * time.Hour); return m.sweep() }},

	// Something is refused.
	{name: "429 at the token endpoint, with Retry-After", outcome: rotation.Deferred, shown: 2,
		happens: func(m *faultScenario) rotation.Outcome {
			m.Issuer.Wait = 7 * time.Minute
			outcome := m.first("issuer.Redeem", before, throttle).rotate()
			time.Sleep(6 * time.Minute)
			if again := m.calm().rotate(); again != rotation.Deferred {
				m.t.Errorf("a minute too early it reports %s", again)
			}
			return outcome
		}},
	{name: "a burst of throttled writes to the secret store", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome { return m.burst(8, "secrets.Put") }},
	{name: "a burst of throttled writes to the ledger before the POST", outcome: rotation.Failed,
		happens: func(m *faultScenario) rotation.Outcome { return m.burst(4, "ledger.Write") }},
	{name: "the ledger takes no writes", outcome: rotation.Failed,
		happens: func(m *faultScenario) rotation.Outcome { return m.unspent(m.down("ledger.Write").rotate) }},
	{name: "a burst of throttles while the answer is to be saved", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.firstN(5, "ledger.SaveResponse", throttle).firstN(5, "secrets.Put", throttle).rotate()
		}},
	{name: "the put budget is used up", outcome: rotation.Deferred,
		happens: func(m *faultScenario) rotation.Outcome {
			m.settings.PutsPerDay = 1
			outcome := m.unspent(m.rotate)
			m.settings.PutsPerDay = 99
			time.Sleep(24 * time.Hour)
			return outcome
		}},
	{name: "the secret has as many versions as it takes", outcome: rotation.Deferred,
		happens: func(m *faultScenario) rotation.Outcome {
			for n := range 99 {
				value := token.NewSecret(fmt.Sprintf(`{"somebody":%d}`, n))
				must(m.t, m.SecretStore.Put(context.Background(), acme, token.VersionID(value), value))
			}
			outcome := m.rotate()
			time.Sleep(24 * time.Hour)
			return outcome
		}},
	{name: "the client secret was replaced at the portal only", outcome: rotation.ConfigError,
		notices: []string{configNotice}, shown: 2,
		happens: func(m *faultScenario) rotation.Outcome {
			changed := app
			changed.ClientSecret = token.NewSecret("canary-replaced")
			m.Issuer.Register(changed)
			outcome := m.rotate()
			time.Sleep(5 * time.Minute)
			m.Applications.Set(changed) // `app set`; nobody touches the connection
			return outcome
		}},
	{name: "the app credentials are those of another app", outcome: rotation.ConfigError, notices: []string{configNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			other := app
			other.ClientID = "another"
			m.Applications.Set(other)
			outcome := m.unspent(m.rotate)
			m.Applications.Set(app)
			return outcome
		}},

	// Malformed answers.
	{name: "half an answer (W1)", outcome: rotation.Unknown, shown: 3, notices: []string{rejectedNotice,
		needsConsentNotice},
		status:  rotation.NeedsConsent,
		happens: func(m *faultScenario) rotation.Outcome { return m.first("issuer.Redeem", after, cut).rotate() }},
	{name: "half an answer in both stores, and nobody consents for days", outcome: rotation.Fresh,
		shown:   5, // the first sweep after a refusal stands for two of its times
		notices: []string{rejectedNotice, needsConsentNotice}, status: rotation.NeedsConsent,
		happens: func(m *faultScenario) rotation.Outcome {
			m.first("issuer.Redeem", after, cut).first("ledger.SaveResponse", before, fail).rotate()
			return m.hourly(4 * 24)
		}},
	{name: "half an answer, on a server that overlaps", server: overlap, outcome: rotation.Unknown, shown: 2,
		notices: []string{rejectedNotice},
		happens: func(m *faultScenario) rotation.Outcome { return m.first("issuer.Redeem", after, cut).rotate() }},
	{name: "an answer with text around it", outcome: rotation.Rotated, notices: []string{salvagedNotice},
		happens: func(m *faultScenario) rotation.Outcome { return m.meets(withExtraText(m.Issuer)).rotate() }},
	{name: "an answer with several refresh tokens", outcome: rotation.InQuarantine, notices: []string{quarantinedNotice},
		happens: func(m *faultScenario) rotation.Outcome { return m.meets(withSeveralTokens(m.Issuer)).rotate() }},
	{name: "an answer with several refresh tokens, of which a person names one", outcome: rotation.Rotated,
		notices: []string{quarantinedNotice, rejectedNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			two := withSeveralTokens(m.Issuer)
			m.meets(two).rotate()
			m.issuer = nil
			return m.process(func(ctx context.Context) (rotation.Report, error) {
				return m.rotator().Release(ctx, acme,
					two.right)
			})
		}},
	{name: "an answer with several refresh tokens, which a person gives up", outcome: rotation.Busy, shown: 3,
		notices: []string{quarantinedNotice, rejectedNotice, needsConsentNotice}, status: rotation.NeedsConsent,
		happens: func(m *faultScenario) rotation.Outcome {
			m.meets(withSeveralTokens(m.Issuer)).rotate()
			m.issuer = nil
			return m.process(func(ctx context.Context) (rotation.Report, error) { return m.rotator().Discard(ctx, acme) })
		}},
	{name: "an answer that is too large for the secret store", outcome: rotation.InQuarantine,
		notices: []string{quarantinedNotice},
		happens: func(m *faultScenario) rotation.Outcome { return m.meets(withHugeAnswers(m.Issuer)).rotate() }},
	{name: "an answer that no known encoding explains", outcome: rotation.InQuarantine,
		notices: []string{quarantinedNotice,
			salvagedNotice, recoveredNotice},
		happens: func(m *faultScenario) rotation.Outcome { return m.meets(withUnknownEncoding(m.Issuer)).rotate() }},
	{name: "a consent with several refresh tokens in its answer", outcome: rotation.Outcome(rotation.Lost),
		notices: []string{quarantinedNotice},
		happens: func(m *faultScenario) rotation.Outcome { return m.meets(withSeveralTokens(m.Issuer)).consentAgain() }},
	{name: "a consent with an answer that is too large for the secret store", outcome: rotation.Outcome(rotation.Lost),
		notices: []string{quarantinedNotice},
		happens: func(m *faultScenario) rotation.Outcome { return m.meets(withHugeAnswers(m.Issuer)).consentAgain() }},
	{name: "an answer that this program cannot read for a fault of its own", outcome: rotation.Failed,
		happens: func(m *faultScenario) rotation.Outcome { return m.meets(&panicking{Issuer: m.Issuer}).rotate() }},
	{name: "the answer comes after the timeout (W1)", outcome: rotation.Unknown, shown: 3, notices: []string{unknownNotice,
		needsConsentNotice}, status: rotation.NeedsConsent,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.first("issuer.Redeem", before, slow(45*time.Second)).rotate()
		}},
	{name: "the caller goes away during the POST", outcome: rotation.Failed, notices: []string{recoveredNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			return m.process(func(ctx context.Context) (rotation.Report, error) {
				ctx, cancel := context.WithCancel(ctx)
				m.during(1, "issuer.Redeem", after, cancel)
				report, err := m.rotator().Rotate(ctx, acme)
				if n := m.answers(); n != 1 {
					m.t.Errorf("%d answers are saved, want 1", n)
				}
				return report, err
			})
		}},

	// Time.
	{name: "a process is frozen between Begin and the POST", outcome: rotation.Deferred,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.unspent(m.during(1, "ledger.Write", after, func() { time.Sleep(45 * time.Second) }).rotate)
		}},
	{name: "a process is frozen with the answer in memory, past its lease", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.during(1, "issuer.Redeem", after, func() { time.Sleep(100 * time.Second) }).rotate()
		}},
	{name: "a process wakes up with the answer after a person was asked to consent", outcome: rotation.Recovered, shown: 2,
		notices: []string{needsConsentNotice, recoveredNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			m.during(1, "ledger.SaveResponse", before, func() {
				time.Sleep(4 * time.Minute)
				if asked := m.sweep(); asked != rotation.ConsentNeeded {
					m.t.Errorf("meanwhile a sweep reports %s", asked)
				}
			})
			return m.rotate()
		}},
	{name: "the operator's clock is two minutes ahead", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome { return m.beside(2 * time.Minute) }},
	{name: "the operator's clock is five minutes behind", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome { return m.beside(-5 * time.Minute) }},
	{name: "the operator's clock is five minutes ahead, and so long is the quiet period", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome {
			m.Settings.Quiet, m.settings.Quiet = 5*time.Minute, 5*time.Minute
			return m.beside(5 * time.Minute)
		}},
	{name: "the schedule fires twice", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome {
			m.during(1, "issuer.Redeem", before, func() {
				if second := m.sweep(); second != rotation.Fresh { // the first has put its due time off
					m.t.Errorf("the second sweep reports %s", second)
				}
			})
			return m.sweep()
		}},
	{name: "the index of what is due lags", outcome: rotation.Fresh,
		happens: func(m *faultScenario) rotation.Outcome {
			m.rotate()
			return m.first("ledger.Due", before, stale).sweep()
		}},
	{name: "a follow-up is delivered twice, and late", server: rotationtest.Personality{Lifetime: 15 * time.Minute},
		outcome: rotation.Fresh,
		happens: func(m *faultScenario) rotation.Outcome {
			m.sweep()
			time.Sleep(20 * time.Minute)
			requests := m.FollowUps.Take()
			var outcome rotation.Outcome
			for _, request := range append(requests, requests...) {
				outcome = m.process(func(ctx context.Context) (rotation.Report, error) { return m.rotator().Do(ctx, request) })
			}
			return outcome
		}},

	// Effects that come late, and reads that come early.
	{name: "Begin's write lands when nobody waits for it any more", outcome: rotation.Deferred,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.nth(begin, "ledger.Write", before, late(100*time.Second)).rotate()
		}},
	{name: "Save lands when the answer is long in the secret store", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.first("ledger.SaveResponse", before, late(100*time.Second)).rotate()
		}},
	{name: "the put lands after a later run's", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.first("secrets.Put", before, late(30*time.Minute)).rotate()
		}},
	{name: "the promote lands after a later generation's", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.first("secrets.Promote", before, late(30*time.Minute)).rotate()
		}},
	{name: "the POST arrives minutes later (W1)", outcome: rotation.Unknown, shown: 3, notices: []string{unknownNotice,
		needsConsentNotice}, status: rotation.NeedsConsent,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.first("issuer.Redeem", before, late(100*time.Second)).rotate()
		}},
	{name: "AWSCURRENT is read as it was before the last rotation", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome {
			m.rotate()
			return m.first("secrets.Current", before, stale).rotate()
		}},
	{name: "the list of versions lacks the newest", outcome: rotation.Unknown, notices: []string{recoveredNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			return m.first("ledger.SaveResponse", before, fail).first("secrets.Versions", before, stale).rotate()
		}},

	// Several at once.
	{name: "two processes decide one response", outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.during(decide, "ledger.Write", before, func() { m.rotate() }).rotate()
		}},
	{name: "two processes publish one pair", outcome: rotation.Fresh, // by then, others have seen to it
		happens: func(m *faultScenario) rotation.Outcome {
			return m.during(1, "secrets.Put", before, func() {
				time.Sleep(40 * time.Second) // the pair is no longer left to the run that obtained it
				m.rotate()
			}).rotate()
		}},
	{name: "a publisher of an older epoch wakes up late", outcome: rotation.Fresh, // by then, others have seen to it
		happens: func(m *faultScenario) rotation.Outcome {
			return m.during(1, "secrets.Put", before, func() {
				m.consentAgain()
				m.deliver(context.Background())
			}).rotate()
		}},
	{name: "a consent comes during a rotation", outcome: rotation.Published,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.during(1, "issuer.Redeem", after, func() { m.consentAgain() }).rotate()
		}},
	{name: "a consent comes while an answer is being saved", outcome: rotation.Published,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.during(1, "ledger.SaveResponse", after, func() { m.consentAgain() }).rotate()
		}},
	{name: "two callbacks at once", outcome: rotation.Outcome(rotation.Superseded), shown: 1,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.during(1, "issuer.Redeem", after, func() { m.consentAgain() }).consentAgain()
		}},
	{name: "a callback crashes after saving", outcome: crashed,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.first("ledger.SaveResponse", after, crash).consentAgain()
		}},
	{name: "the answer to a callback's code is lost", outcome: rotation.Outcome(rotation.Lost),
		happens: func(m *faultScenario) rotation.Outcome { return m.first("issuer.Redeem", after, fail).consentAgain() }},
	{name: "a callback with the consent of somebody else crashes after saving", outcome: crashed,
		notices: []string{rejectedNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			return m.first("ledger.SaveResponse", after, crash).consentOf(sam)
		}},
	{name: "the ledger goes down during a callback", outcome: rotation.Outcome(rotation.Lost),
		notices: []string{unsavedNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			return m.downAfter(1, "issuer.Redeem", "ledger.").consentAgain()
		}},
	{name: "the provider cannot name the owner of a consent", outcome: rotation.Outcome(rotation.Verifying),
		happens: func(m *faultScenario) rotation.Outcome { return m.down("issuer.Identify").consentAgain() }},
	{name: "a disconnect comes during a rotation", outcome: rotation.NotFound, status: rotation.Disconnected,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.during(1, "issuer.Redeem", after, func() { m.disconnect() }).rotate()
		}},
	{name: "a disconnect comes during a rotation, and only the secret store takes its answer", outcome: crashed,
		status: rotation.Disconnected,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.during(1, "issuer.Redeem", after, func() { m.disconnect() }).
				first("ledger.SaveResponse", before, fail).first("secrets.Put", after, crash).rotate()
		}},
	{name: "a disconnect comes during a consent", outcome: rotation.Outcome(rotation.Superseded),
		status: rotation.Disconnected, shown: none,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.during(1, "issuer.Redeem", after, func() { m.disconnect() }).consentAgain()
		}},
	{name: "a disconnect comes during a consent, which crashes after saving", outcome: crashed,
		status: rotation.Disconnected, shown: none,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.during(1, "issuer.Redeem", after, func() { m.disconnect() }).first("ledger.SaveResponse", after,
				crash).consentAgain()
		}},
	{name: "a disconnect while the provider is down", outcome: rotation.NotFound, status: rotation.Disconnected,
		shown:   none,
		happens: func(m *faultScenario) rotation.Outcome { return m.down("issuer.").disconnect() }},
	{name: "a consent of somebody else, not revoked at once, while an end is unknown", outcome: rotation.Unknown, shown: 2,
		notices: []string{unknownNotice, rejectedNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			outcome := m.first("issuer.Redeem", before, fail).rotate()
			m.first("issuer.Revoke", before, fail)
			if result, _ := m.consent(context.Background(), sam,
				rotation.Identity{Company: "42"}); result != rotation.WrongIdentity {
				m.t.Errorf("the consent ends as %s", result)
			}
			time.Sleep(m.settings.Lease + time.Second)
			if again := m.sweep(); again != rotation.Unknown {
				m.t.Errorf("a minute later a sweep reports %s", again)
			}
			if live := m.livePairs(m.t); live != 1 {
				m.t.Errorf("%d pairs are alive", live)
			}
			return outcome
		}},

	// People.
	{name: "the user takes the consent back", outcome: rotation.ConsentNeeded, shown: 2,
		notices: []string{needsConsentNotice},
		status:  rotation.NeedsConsent,
		happens: func(m *faultScenario) rotation.Outcome { m.withdraw(); return m.rotate() }},
	{name: "the user takes the consent back, and the ledger does not take that", outcome: rotation.Failed,
		notices: []string{needsConsentNotice}, shown: 3, status: rotation.NeedsConsent,
		happens: func(m *faultScenario) rotation.Outcome {
			m.withdraw()
			return m.nth(giveUp, "ledger.Write", before, fail).sweep()
		}},
	{name: "the user takes the consent back, and a process dies right after writing so", outcome: crashed, shown: 2,
		notices: []string{needsConsentNotice}, status: rotation.NeedsConsent,
		happens: func(m *faultScenario) rotation.Outcome {
			m.withdraw()
			return m.nth(giveUp, "ledger.Write", after, crash).rotate()
		}},
	{name: "the user takes the consent back, and a process dies right after writing that people were notified",
		outcome: crashed, shown: 2, notices: []string{needsConsentNotice}, status: rotation.NeedsConsent,
		happens: func(m *faultScenario) rotation.Outcome {
			m.withdraw()
			return m.nth(recordNotice, "ledger.Write", after, crash).sweep()
		}},
	{name: "a refresh token is imported after the table was lost, while the secret shows the previous pair",
		outcome: rotation.Rotated,
		happens: func(m *faultScenario) rotation.Outcome {
			m.withdraw()
			loseTable(m.harness)
			importer.act(context.Background(), m.harness)
			return m.sweep()
		}},
	{name: "the monthly sandbox is wiped, and the user allows again", outcome: rotation.Outcome(rotation.Connected),
		notices: []string{needsConsentNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			m.Issuer.Wipe(context.Background())
			if wiped := m.sweep(); wiped != rotation.ConsentNeeded {
				m.t.Errorf("after it a sweep reports %s", wiped)
			}
			return m.consentAgain()
		}},
	{name: "an operator wants to discard an answer that only waits for the ledger", outcome: rotation.Deferred,
		notices: []string{recoveredNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			outcome := m.nth(decide, "ledger.Write", before, fail).rotate()
			if _, err := m.rotator().Discard(context.Background(), acme); !errors.Is(err, rotation.ErrNothingQuarantined) {
				m.t.Errorf("discarding it: %v", err)
			}
			return outcome
		}},
	{name: "an operator wants to discard an answer that could not be opened, and now can be", outcome: rotation.Recovered,
		notices: []string{configNotice, recoveredNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			sealAway(m.harness)
			if _, err := m.rotator().Discard(context.Background(), acme); !errors.Is(err, rotation.ErrNothingQuarantined) {
				m.t.Errorf("discarding it: %v", err)
			}
			time.Sleep(2 * time.Minute)
			return m.sweep()
		}},
	{name: "an operator with wrong keys discards an answer, and its pair is revoked after the next consent",
		outcome: rotation.Outcome(rotation.Connected), shown: 2,
		notices: []string{configNotice, rejectedNotice, configNotice, needsConsentNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			sealAway(m.harness)
			wrongKeys.act(context.Background(), m.harness)
			time.Sleep(10 * time.Minute)
			m.sweep()
			outcome := m.consentAgain()
			m.sweep()
			if live := m.livePairs(m.t); live != 1 {
				m.t.Errorf("%d pairs are alive, want that of the consent", live)
			}
			return outcome
		}},
	{name: "the user takes the consent back and allows again", outcome: rotation.Outcome(rotation.Connected),
		notices: []string{needsConsentNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			m.withdraw()
			m.rotate()
			return m.consentAgain()
		}},
	{name: "the secret is edited by hand", outcome: rotation.Rotated, notices: []string{driftNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			must(m.t, m.SecretStore.Edit(context.Background(), acme, token.NewSecret(`{"hello":"operator"}`)))
			return m.rotate()
		}},
	{name: "the secret is rolled back", outcome: rotation.Rotated, notices: []string{driftNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			m.rotate()
			time.Sleep(time.Minute)
			must(m.t, m.SecretStore.RollBack(context.Background(), acme, m.SecretStore.Label(acme, "AWSPREVIOUS")))
			return m.rotate()
		}},
	{name: "the secret is edited between preflight and publishing", outcome: rotation.Rotated,
		notices: []string{driftNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			return m.during(1, "issuer.Redeem", after, func() {
				must(m.t, m.SecretStore.Edit(context.Background(), acme, token.NewSecret(`{"hello":"operator"}`)))
			}).rotate()
		}},
	{name: "the secret is scheduled for deletion", outcome: rotation.ConfigError, notices: []string{configNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			m.SecretStore.Delete(acme)
			outcome := m.unspent(m.rotate)
			m.SecretStore.Restore(acme)
			return outcome
		}},
	{name: "the secret is scheduled for deletion during a rotation", outcome: rotation.ConfigError,
		notices: []string{configNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			outcome := m.during(1, "issuer.Redeem", after, func() { m.SecretStore.Delete(acme) }).rotate()
			m.SecretStore.Restore(acme)
			return outcome
		}},
	{name: "the secret is deleted for good", outcome: rotation.Rotated, notices: []string{driftNotice},
		happens: func(m *faultScenario) rotation.Outcome { m.SecretStore.Purge(acme); return m.rotate() }},
	{name: "two installations share one prefix", outcome: rotation.ConfigError, notices: []string{configNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			mine, err := m.read(context.Background())
			must(m.t, err)
			m.foreign(mine, "other", 1)
			outcome := m.unspent(m.rotate)
			must(m.t, m.SecretStore.RollBack(context.Background(), acme, m.SecretStore.Label(acme, "AWSPREVIOUS")))
			return outcome
		}},
	{name: "somebody forges a later generation", outcome: rotation.Rotated, notices: []string{driftNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			mine, err := m.read(context.Background())
			must(m.t, err)
			m.foreign(mine, mine.Stack, 6)
			return m.rotate()
		}},
	{name: "the table is restored from a backup", outcome: rotation.Recovered, notices: []string{driftNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			restore := m.Ledger.Backup()
			m.hourly(3)
			restore()
			return m.rotate()
		}},
	{name: "the table is restored from a backup, on a server that ends the family", server: family,
		outcome: rotation.Recovered, notices: []string{driftNotice},
		happens: func(m *faultScenario) rotation.Outcome {
			restore := m.Ledger.Backup()
			m.hourly(3)
			restore()
			return m.rotate()
		}},
	{name: "a row has lost its pair, and gets it back", outcome: rotation.Failed,
		happens: func(m *faultScenario) rotation.Outcome {
			putBack := m.Ledger.Backup()
			m.rewrite(func(r *rotation.Record) rotation.Change { r.Current = nil; return rotation.Change{} })
			outcome := m.unspent(m.rotate)
			putBack()
			return outcome
		}},
	{name: "a row is poisoned", outcome: rotation.Failed,
		happens: func(m *faultScenario) rotation.Outcome {
			return m.unspent(m.through(func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
				if at.Call == "ledger.Write" {
					panic("a value that nobody expected")
				}
				return rotationtest.Fault{}
			}).rotate)
		}},
}
