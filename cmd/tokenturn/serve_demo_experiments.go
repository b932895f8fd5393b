package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/tokenturn/tokenturn/pkg/console"
	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// experiments are all of the demo, in the order shown.
func (f *faults) experiments() []*experiment {
	all := []*experiment{f.loseAnswer(), f.killWorker(), f.refuseWrites(), f.lockDatabase(), f.slowServer(), f.rateLimit(),
		f.serverDown(), f.shortTokens(), f.wrongClientSecret(), f.oldPair(), f.clockAhead(), f.revokeAccess(),
		f.loseForGood()}
	for _, e := range all {
		e.state = console.Ready
	}
	return all
}

// doubt is how long a token with an unknown end is not presented, for people.
func (f *faults) doubt() string {
	usual := rotation.DefaultSettings("")
	return fmt.Sprintf("the lease and the quiet period (%s here, %s by default)",
		inWords(f.timing.lease+f.timing.quiet), inWords(usual.Lease+usual.Quiet))
}

func (f *faults) loseAnswer() *experiment {
	return &experiment{name: "lose-answer", title: "Lose the next answer",
		promise: "The server takes the refresh token, and its answer is lost on the way. tokenturn notices that the " +
			"answer is lost, waits until it can no longer arrive, presents the old refresh token again, and a new " +
			"generation appears. This server accepts an old pair until the new one is first used, as some do.",
		steps: []step{
			{"The server accepts the refresh token and drops the connection instead of answering.",
				func(ctx context.Context, t *trial) error {
					f.standIn.Script(procoretest.Lost())
					return t.rotateAndSee(ctx, t.presentedWith(1, granted))
				}},
			unknownStep(),
			againStep("After "+f.doubt(), granted, "and gets a pair"),
			newPairStep(),
		}}
}

func (f *faults) killWorker() *experiment {
	var killed *process
	return &experiment{name: "kill", title: "Kill the rotation process",
		promise: "The process that rotates is killed (SIGKILL) at the worst moment: the server has taken the refresh " +
			"token, and the answer is on its way. A supervisor starts a new process. It finds what the old one had " +
			"begun, waits until no answer can arrive any more, presents the old refresh token again, and a new " +
			"generation appears.",
		steps: []step{
			{"The server accepts the refresh token and has not answered yet.", func(ctx context.Context, t *trial) error {
				f.holdAnswer()
				return t.rotateAndSee(ctx, t.presentedWith(1, granted))
			}},
			{"The rotation process is killed.", func(context.Context, *trial) error {
				killed = f.supervisor.kill()
				if killed == nil || killed.state.Success() {
					return errNotKilled
				}
				return nil
			}},
			{"The supervisor has started a new one.", func(ctx context.Context, t *trial) error {
				return t.until(ctx, func() bool { p, _ := f.supervisor.running(); return p != nil && p != killed })
			}},
			againStep("After "+f.doubt(), granted, "and gets a pair"),
			newPairStep(),
		}}
}

func (f *faults) refuseWrites() *experiment {
	return &experiment{name: "refuse-writes", title: "Secret store refuses writes",
		promise: fmt.Sprintf("For %s, the secret store takes no new version. The new pair is safe in the ledger all "+
			"the same, programs go on with the old access token, and tokenturn publishes the new one when the store "+
			"takes it. No refresh token is presented a second time.", inWords(f.timing.refusal)),
		steps: []step{
			{"tokenturn gets a new pair and saves it in the ledger.", func(ctx context.Context, t *trial) error {
				if err := f.refuseVersions(ctx, f.timing.refusal); err != nil {
					return err
				}
				return t.rotateAndSee(ctx, func() bool { return t.record(ctx).Generation > t.before.Generation })
			}},
			{"The secret store does not show it. Programs still get the old access token, which still works.",
				func(ctx context.Context, t *trial) error {
					return t.until(ctx, func() bool {
						rec := t.record(ctx)
						doc, ok := t.document(ctx)
						return ok && !shown(rec) && time.Since(rec.Current.SavedAt) > time.Second &&
							doc.Generation < rec.Generation && t.standIn.Accepts(doc.AccessToken)
					})
				}},
			{"The secret store takes it at last. No refresh token was presented twice.",
				func(ctx context.Context, t *trial) error {
					return t.until(ctx, both(t.publishes(ctx), t.presentedOnce))
				}},
		}}
}

func (f *faults) lockDatabase() *experiment {
	return &experiment{name: "lock", title: "Lock the database",
		promise: fmt.Sprintf("Another process locks the database for %s, just when the answer of the server is on its "+
			"way. tokenturn has the only copy of the new pair then. It keeps trying to save it, and saves it when the "+
			"lock ends. No token is lost, and none is presented a second time.", inWords(f.timing.lock)),
		steps: []step{
			{"The server accepts the refresh token. Now another process locks the database, and the answer arrives.",
				func(ctx context.Context, t *trial) error {
					f.holdAnswer()
					if err := t.rotateAndSee(ctx, t.presentedWith(1, granted)); err != nil {
						return err
					}
					defer f.release()
					return f.lock(ctx)
				}},
			{"tokenturn cannot save the new pair, and does not give up.", func(ctx context.Context, t *trial) error {
				over := time.Now().Add(f.timing.lock)
				return t.until(ctx, func() bool {
					rec := t.record(ctx)
					return time.Now().After(over) && rec.Attempt != nil && rec.Generation == t.before.Generation
				})
			}},
			{"The lock ends, and the pair is saved and published. No refresh token was presented twice.",
				func(ctx context.Context, t *trial) error {
					if err := f.unlock(ctx); err != nil {
						return err
					}
					return t.until(ctx, both(t.publishes(ctx), t.presentedOnce))
				}},
		}}
}

func (f *faults) slowServer() *experiment {
	return &experiment{name: "slow", title: "Slow server",
		promise: fmt.Sprintf("The server takes %s to answer. tokenturn waits up to %s (20 seconds by default). A second run "+
			"that comes meanwhile finds the attempt of the first and presents nothing.",
			inWords(f.timing.slow), inWords(f.timing.redeemTimeout)),
		steps: []step{
			{"The server accepts the refresh token and takes its time.", func(ctx context.Context, t *trial) error {
				f.holdAnswer()
				return t.rotateAndSee(ctx, t.presentedWith(1, granted))
			}},
			{"A second run comes and leaves the connection alone.", func(ctx context.Context, t *trial) error {
				presented := t.presentations()[0].At
				if err := t.rotateAndSee(ctx, t.reported(rotation.Busy)); err != nil {
					return err
				}
				defer f.release()
				return t.until(ctx, func() bool { return time.Since(presented) >= f.timing.slow })
			}},
			{"The answer arrives and is published. No refresh token was presented twice.",
				func(ctx context.Context, t *trial) error {
					return t.until(ctx, both(t.publishes(ctx), t.presentedOnce))
				}},
		}}
}

func (f *faults) rateLimit() *experiment {
	return &experiment{name: "rate-limit", title: "Too many requests (429)",
		promise: fmt.Sprintf("The server answers 429 and asks to wait for %s. tokenturn knows that the refresh token is "+
			"not spent. It waits that long, even if a person asks for a rotation, and then presents the same token.",
			inWords(f.timing.wait)),
		steps: []step{
			{"The server answers 429 with Retry-After.", func(ctx context.Context, t *trial) error {
				f.standIn.Script(procoretest.TooManyRequests(f.timing.wait))
				return t.rotateAndSee(ctx, t.presentedWith(1, unreceived))
			}},
			{"tokenturn waits.", func(ctx context.Context, t *trial) error {
				return t.until(ctx, t.reported(rotation.Deferred))
			}},
			{"A person asks for a rotation. Nothing is presented before the wait is over.",
				func(ctx context.Context, t *trial) error {
					before := t.reportsWith(rotation.Deferred)
					return t.rotateAndSee(ctx, func() bool {
						return t.reportsWith(rotation.Deferred) > before && len(t.presentations()) == 1
					})
				}},
			againStep("After the wait", granted, "and gets a pair"),
			newPairStep(),
		}}
}

func (f *faults) serverDown() *experiment {
	return &experiment{name: "down", title: "Server down (503)",
		promise: fmt.Sprintf("For %s, the server answers everything with 503. That does not say whether it has taken the "+
			"refresh token. tokenturn treats it as a lost answer: it waits, and then presents the same token again.",
			inWords(f.timing.outage)),
		steps: []step{
			{"The server answers 503.", func(ctx context.Context, t *trial) error {
				f.standIn.TakeDown(503)
				return t.rotateAndSee(ctx, t.presentedWith(1, unreceived))
			}},
			unknownStep(),
			{"The server works again.", func(ctx context.Context, t *trial) error {
				over := t.presentations()[0].At.Add(f.timing.outage)
				if err := t.until(ctx, func() bool { return time.Now().After(over) }); err != nil {
					return err
				}
				f.standIn.BringUp()
				return nil
			}},
			againStep("After "+f.doubt(), granted, "and gets a pair"),
			newPairStep(),
		}}
}

func (f *faults) shortTokens() *experiment {
	var first int64 // generation with the short lifetime
	lives := func(ctx context.Context, t *trial, lifetime time.Duration) func() bool {
		return func() bool {
			rec := t.record(ctx)
			return shown(rec) && rec.Generation > t.before.Generation && rec.Current.Lifetime.Duration() == lifetime
		}
	}
	return &experiment{name: "short-tokens", title: "15-minute tokens",
		limit: max(usualLimit, 4*f.timing.short), // three tokens live in it
		promise: fmt.Sprintf("Procore has announced access tokens that live for 15 minutes instead of 90. Here, "+
			"%s stand for 90 minutes, and from now on tokens live for %s, which stand for 15. tokenturn reads the "+
			"lifetime of each token and rotates in time, without a setting.",
			inWords(f.timing.lifetime), inWords(f.timing.short)),
		steps: []step{
			{fmt.Sprintf("The first access token that lives for %s is published.", inWords(f.timing.short)),
				func(ctx context.Context, t *trial) error {
					f.standIn.SetLifetime(f.timing.short)
					err := t.rotateAndSee(ctx, lives(ctx, t, f.timing.short))
					first = t.record(ctx).Generation
					return err
				}},
			{"tokenturn rotates twice in time: programs never get an expired token.",
				func(ctx context.Context, t *trial) error {
					expired := false
					err := t.until(ctx, func() bool {
						doc, ok := t.document(ctx)
						expired = expired || ok && !time.Now().Before(doc.ExpiresAt)
						return ok && doc.Generation >= first+2
					})
					if err == nil && expired {
						err = errExpired
					}
					return err
				}},
			{"Tokens live as long as before, and tokenturn rotates less often again.",
				func(ctx context.Context, t *trial) error {
					f.standIn.SetLifetime(f.timing.lifetime)
					return t.rotateUntil(ctx, 0, lives(ctx, t, f.timing.lifetime))
				}},
		}}
}

func (f *faults) wrongClientSecret() *experiment {
	return &experiment{name: "wrong-secret", title: "Wrong client secret",
		promise: "Somebody resets the client secret at the server, and nobody tells tokenturn. It reports a " +
			"configuration error and spends nothing. As soon as the secrets agree again, it goes on where it was. " +
			"With the real Procore, you would store the new secret: tokenturn app set production. Here, the old one comes " +
			"back.",
		steps: []step{
			{"The server does not accept the client secret.", func(ctx context.Context, t *trial) error {
				f.wrongSecret()
				return t.rotateAndSee(ctx, t.presentedWith(1, "invalid_client"))
			}},
			{"tokenturn reports a configuration error. The refresh token is not spent.",
				func(ctx context.Context, t *trial) error {
					return t.until(ctx, both(t.reported(rotation.ConfigError), func() bool {
						return f.alive(t.presentations()[0].Fingerprint)
					}))
				}},
			{"The secrets agree again, and tokenturn presents the same refresh token.",
				func(ctx context.Context, t *trial) error {
					if err := t.look(ctx); err != nil {
						return err
					}
					f.standIn.Register(f.app)
					return t.rotateUntil(ctx, 0, t.presentedWith(2, granted))
				}},
			newPairStep(),
		}}
}

func (f *faults) oldPair() *experiment {
	var old token.Document
	// both tokens, after a rotation: the old one works or not, the published one does
	rotates := func(ctx context.Context, t *trial, oldWorks bool) error {
		var ok bool
		if old, ok = t.document(ctx); !ok {
			return errNotShown
		}
		return t.rotateAndSee(ctx, func() bool {
			doc, ok := t.document(ctx)
			return ok && doc.Generation > old.Generation && shown(t.record(ctx)) && t.standIn.Accepts(doc.AccessToken) &&
				t.standIn.Accepts(old.AccessToken) == oldWorks
		})
	}
	return &experiment{name: "old-pair", title: "Old pair overlaps or dies at once",
		promise: "Servers differ in what a refresh does to the old pair: it dies at once, as Procore documents, or it " +
			"works until the new access token is first used. tokenturn needs to know neither: both times, programs get " +
			"a token that works.",
		steps: []step{
			{"The old pair dies at once. The old access token is refused, and the published one works.",
				func(ctx context.Context, t *trial) error {
					f.standIn.SetPersonality()
					return rotates(ctx, t, false)
				}},
			{"The old pair overlaps. The old access token still works, and the published one works as well.",
				func(ctx context.Context, t *trial) error {
					if err := t.look(ctx); err != nil {
						return err
					}
					f.standIn.SetPersonality(procoretest.OldLivesUntilFirstUse)
					return rotates(ctx, t, true)
				}},
		}}
}

func (f *faults) clockAhead() *experiment {
	savedAt := func(ctx context.Context, t *trial, ahead time.Duration) func() bool {
		return func() bool {
			rec := t.record(ctx)
			off := time.Until(rec.Current.SavedAt) - ahead
			return shown(rec) && rec.Generation > t.before.Generation && off.Abs() < f.timing.ahead/2
		}
	}
	return &experiment{name: "clock", title: "Clock an hour ahead",
		promise: "The clock of the rotation process jumps an hour ahead. tokenturn compares it with the time in the " +
			"server's answer, sends a notice, and counts from the earlier time, so that no token expires unseen. " +
			"Then the clock is right again.",
		steps: []step{
			{fmt.Sprintf("The rotation process runs with its clock %s ahead.", inWords(f.timing.ahead)),
				func(ctx context.Context, t *trial) error { return f.supervisor.restart(ctx, f.timing.ahead) }},
			{"It rotates, and a notice says that the clocks differ.", func(ctx context.Context, t *trial) error {
				return t.rotateAndSee(ctx, both(savedAt(ctx, t, f.timing.ahead), t.noticed(rotation.NoticeClock)))
			}},
			{"Programs get a token that works.", func(ctx context.Context, t *trial) error {
				return t.until(ctx, t.publishes(ctx))
			}},
			{"The clock is right again, and so are the times of the next pair.", func(ctx context.Context, t *trial) error {
				if err := t.look(ctx); err != nil {
					return err
				}
				if err := f.supervisor.restart(ctx, 0); err != nil {
					return err
				}
				return t.rotateUntil(ctx, 0, both(savedAt(ctx, t, 0), t.publishes(ctx)))
			}},
		}}
}

func (f *faults) revokeAccess() *experiment {
	return &experiment{name: "revoke", title: "User revokes access", consent: true, limit: personLimit,
		promise: "The user withdraws the app's access in Procore. No program can undo that. tokenturn notices it at the " +
			"next rotation and asks for a new consent. Create a consent link above, open it and allow access: everything " +
			"goes on.",
		steps: append([]step{
			{"The server has revoked the pair.", func(ctx context.Context, t *trial) error {
				f.standIn.RevokeAll(f.app.ClientID, procoretest.DefaultUser().Login)
				return t.until(ctx, func() bool { return len(f.standIn.Live()) == 0 })
			}},
			{"The server refuses the refresh token (invalid_grant).", func(ctx context.Context, t *trial) error {
				return t.rotateAndSee(ctx, t.presentedWith(1, "invalid_grant"))
			}},
		}, consentSteps()...)}
}

func (f *faults) loseForGood() *experiment {
	return &experiment{name: "lose-for-good", title: "Lose an answer for good", consent: true, limit: personLimit,
		promise: "The old pair dies at once, as Procore documents, and the answer with the new pair is lost on the way. " +
			"Nobody has a living token then, and no program can get one. tokenturn makes sure of that, and asks for a " +
			"new consent. Create a consent link above, open it and allow access: everything goes on.",
		steps: append([]step{
			{"The server accepts the refresh token, ends the old pair, and drops the connection instead of answering.",
				func(ctx context.Context, t *trial) error {
					f.standIn.SetPersonality()
					f.standIn.Script(procoretest.Lost())
					return t.rotateAndSee(ctx, t.presentedWith(1, granted))
				}},
			unknownStep(),
			againStep("After "+f.doubt(), "invalid_grant", "and is refused"),
		}, consentSteps()...)}
}

// Outcomes of presentations; see procoretest.Presentation.
const (
	granted    = "granted"
	unreceived = "unreceived"
)

func unknownStep() step {
	return step{"tokenturn notes that the answer is not known, and presents nothing for now.",
		func(ctx context.Context, t *trial) error { return t.until(ctx, t.reported(rotation.Unknown)) }}
}

// againStep waits until the refresh token is presented a second time.
func againStep(when, outcome, result string) step {
	return step{fmt.Sprintf("%s, tokenturn presents the same refresh token again, %s.", when, result),
		func(ctx context.Context, t *trial) error { return t.rotateUntil(ctx, 0, t.presentedWith(2, outcome)) }}
}

func newPairStep() step {
	return step{"A new generation is published, and its access token works.",
		func(ctx context.Context, t *trial) error {
			return t.rotateUntil(ctx, t.faults.timing.lease, t.publishes(ctx)) // if this answer is lost as well
		}}
}

// consentSteps are how a person repairs a connection.
func consentSteps() []step {
	return []step{
		{"tokenturn says that the connection needs a consent.", func(ctx context.Context, t *trial) error {
			return t.until(ctx, func() bool { return t.record(ctx).Status == rotation.NeedsConsent })
		}},
		{"You create a consent link above, open it and allow access.", func(ctx context.Context, t *trial) error {
			return t.until(ctx, func() bool {
				rec := t.record(ctx)
				return rec.Epoch > t.before.Epoch && rec.Status == rotation.Active
			})
		}},
		newPairStep(),
	}
}

// inWords is a duration for people.
func inWords(d time.Duration) string {
	number := func(n float64, unit string) string {
		if n != 1 {
			unit += "s"
		}
		return strconv.FormatFloat(n, 'f', -1, 64) + " " + unit
	}
	switch {
	case d%time.Hour == 0:
		return number(d.Hours(), "hour")
	case d%time.Minute == 0:
		return number(d.Minutes(), "minute")
	}
	return number(d.Seconds(), "second")
}

func both(one, other func() bool) func() bool { return func() bool { return one() && other() } }

var (
	errExpired   = errors.New("programs got an expired token")
	errNotShown  = errors.New("the secret cannot be read")
	errNotKilled = errors.New("it ended before it was killed")
)
