package rotationtest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func TestWhatIsRightPasses(t *testing.T) {
	for name, steps := range map[string]func(*story){
		"things are logged before and after an answer": func(s *story) {
			p := s.connect(1)
			s.Logger().InfoContext(s.ctx, "before")
			s.rotate(p, 1, 1)
			s.Logger().InfoContext(s.ctx, "after")
		},
		"ten generations": func(s *story) {
			p := s.connect(1)
			for generation := range int64(10) {
				p = s.rotate(p, 1, generation+1)
			}
		},
		"presented again after a 429": func(s *story) {
			p := s.connect(1)
			s.Issuer.Gate = Nth(1, "issuer.Redeem", Before, Fault{Kind: Throttle})
			s.begin(p)
			s.present(p)
			s.rotate(p, 1, 1)
		},
		"presented again after the quiet period": func(s *story) {
			p := s.connect(1)
			s.lose(Before)
			s.begin(p)
			s.present(p)
			s.waitOut()
			s.rotate(p, 1, 1)
		},
		"presented again after an answer without a refresh token": func(s *story) {
			p := s.connect(1)
			s.Issuer.Personality.Overlap = true
			s.Issuer.Gate = Watch(s.Journal, Nth(1, "issuer.Redeem", After, Fault{Kind: Cut}))
			s.begin(p)
			s.present(p)
			m := successor(p, 1, 1)
			s.save(m)
			m.State = rotation.Rejected
			s.change(func(*rotation.Record) {}, m)
			s.waitOut()
			s.begin(p)
			next := s.present(p)
			again := successor(p, 1, 1)
			again.Key.Attempt = "second"
			s.save(again)
			s.decide(next, 1, 1)
			s.publish(next, 1, 1)
		},
		"a lost answer ends in a new consent": func(s *story) {
			p := s.connect(1)
			s.lose(After)
			s.begin(p)
			s.present(p)
			s.waitOut()
			s.ask(p)
		},
		"a quarantined answer is given up, and its pair stays valid": func(s *story) {
			p := s.connect(1)
			s.giveUp(p, rotation.Quarantined, rotation.Rejected)
			s.waitOut()
			s.ask(p)
		},
		"people are notified of an answer that could not be saved": func(s *story) {
			p := s.connect(1)
			s.begin(p)
			s.present(p)
			s.notice(rotation.NoticeUnsaved)
			s.waitOut()
			s.ask(p)
		},
		"a process died with an answer": func(s *story) {
			p := s.connect(1)
			s.begin(p)
			s.present(p)
			s.Ledger.Gate = Watch(s.Journal, Nth(1, "ledger.SaveResponse", Before, Fault{Kind: Crash}))
			go s.save(successor(p, 1, 1))
		},
		"a notice was cut off by a fault": func(s *story) {
			p := s.connect(1)
			s.lose(Before)
			s.begin(p)
			s.change(func(r *rotation.Record) { r.Attempt.Presentations = 1 })
			s.present(p)
			s.Notifier.Gate = Watch(s.Journal, Nth(1, "notifier.Notify", Before, Fault{Kind: Fail}))
			s.notice(rotation.NoticeUnknown)
		},
		"a withdrawal ends in a new consent": func(s *story) {
			p := s.connect(1)
			s.Issuer.Withdraw(s.ctx, p.AccessToken)
			s.ask(p)
			s.connect(2)
		},
		"a server refuses once by mistake, and is asked again": func(s *story) {
			p := s.connect(1)
			s.refuseOnce()
			s.ask(p)
			next := s.scheduled().retry(p, 15*time.Minute)
			s.save(successor(p, 1, 1))
			s.decide(next, 1, 1)
			s.notice(rotation.NoticeRecovered)
			s.publish(next, 1, 1)
		},
		"a withdrawn token is tried at each of its times, and by a person": func(s *story) {
			p := s.connect(1)
			s.Issuer.Withdraw(s.ctx, p.AccessToken)
			s.ask(p)
			s.retry(p, time.Minute)
			for _, after := range []time.Duration{14 * time.Minute, 45 * time.Minute, 5 * time.Hour, 18 * time.Hour} {
				s.scheduled().retry(p, after)
			}
			s.retry(p, time.Minute)
			s.change(func(r *rotation.Record) { r.Attempt = nil })
		},
		"a person's retry, soon after a run met a fault when it had written the refusal": func(s *story) {
			p := s.connect(1)
			s.Issuer.Withdraw(s.ctx, p.AccessToken)
			s.ask(p)
			s.FollowUps.Gate = Watch(s.Journal, Nth(1, "followups.Send", After, Fault{Kind: Fail}))
			_ = s.FollowUps.Send(s.ctx, rotation.Request{Op: "sweep"}, 0)
			s.retry(p, time.Minute)
		},
		"a retry with a lost answer": func(s *story) {
			p := s.connect(1)
			s.Issuer.Withdraw(s.ctx, p.AccessToken)
			s.ask(p)
			s.lose(Before)
			s.scheduled().retry(p, 15*time.Minute)
			s.Issuer.Gate = nil
			s.scheduled().retry(p, s.Settings.Lease+s.Settings.Quiet+time.Second)
			s.change(func(r *rotation.Record) { r.Attempt = nil })
		},
		"a consent of somebody else is rejected": func(s *story) {
			s.rejectConsent(rotation.Identity{ResourceOwner: "8"}, rotation.Identity{ResourceOwner: "7"})
		},
		"a consent that was taken back is rejected": func(s *story) {
			s.change(func(r *rotation.Record) { r.Status = rotation.Pending })
			p := s.exchange()
			s.Issuer.Withdraw(s.ctx, p.AccessToken)
			s.reject(rotation.Identity{})
		},
		"a request that its caller leaves alone": func(s *story) {
			p := s.connect(1)
			s.Issuer.Gate = Watch(s.Journal, Nth(1, "issuer.Redeem", Before, Fault{Kind: Cancel}))
			s.rotate(p, 1, 1)
		},
		"an app with refused requests is left to the next run": func(s *story) {
			p := s.connect(1)
			s.Issuer.FindsFault = 3
			for _, n := range []int{2, 1} {
				s.runOf(func(s *story) {
					for range n {
						s.begin(p)
						s.present(p)
					}
				})
				time.Sleep(time.Minute)
			}
			s.rotate(p, 1, 1)
		},
		"a run with time to save": func(s *story) {
			ctx, cancel := Within(s.ctx, s.Settings.RedeemTimeout+timeToSave)
			defer cancel()
			(&story{s.Harness, ctx}).rotate(s.connect(1), 1, 1)
		},
		"a process with a clock that is ahead": func(s *story) {
			p := s.connect(1)
			s.ctx = OffBy(s.ctx, time.Hour)
			s.change(func(r *rotation.Record) {
				r.Attempt = &rotation.Attempt{ID: "attempt", Fingerprint: p.RefreshToken.Fingerprint(),
					Until: time.Now().Add(time.Hour + s.Settings.Lease)}
			})
			next := s.present(p)
			s.save(successor(p, 1, 1))
			s.decide(next, 1, 1)
			s.publish(next, 1, 1)
		},
		"a person moves AWSCURRENT and it is put back": func(s *story) {
			p := s.connect(1)
			old := s.SecretStore.Label(acme, current)
			p = s.rotate(p, 1, 1)
			_ = s.SecretStore.RollBack(s.ctx, acme, old)
			s.publish(p, 1, 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if _, atRest := runStory(t, Personality{}, steps); atRest != nil {
				t.Error(atRest)
			}
		})
	}
}

func TestEachInvariantIsChecked(t *testing.T) {
	for name, test := range map[string]struct {
		invariant string
		steps     func(*story)
	}{
		"presented without an attempt": {"I1", func(s *story) { s.present(s.connect(1)) }},
		"presented after the lease": {"I1", func(s *story) {
			p := s.connect(1)
			s.begin(p)
			time.Sleep(s.Settings.Lease + time.Second)
			s.present(p)
		}},
		"presented twice at a time": {"I2", func(s *story) {
			p := s.connect(1)
			s.Issuer.Gate = Nth(1, "issuer.Redeem", Before, Fault{Kind: Freeze, For: time.Second})
			s.begin(p)
			go s.present(p)
			synctest.Wait()
			s.present(p)
		}},
		"presented again before the quiet period's end": {"I2", func(s *story) {
			p := s.connect(1)
			s.lose(After)
			s.begin(p)
			s.present(p)
			time.Sleep(s.Settings.Lease + time.Second)
			s.begin(p)
			s.present(p)
		}},
		"presented again although a successor is saved": {"I2", func(s *story) {
			p := s.connect(1)
			s.begin(p)
			s.present(p)
			s.save(successor(p, 1, 1))
			s.waitOut()
			s.begin(p)
			s.present(p)
		}},
		"presented again although a successor is in escrow": {"I2", func(s *story) {
			p := s.connect(1)
			s.begin(p)
			s.present(p)
			value := token.NewSecret(fmt.Sprintf(`{"escrow":1,"mint":%s}`, encode(successor(p, 1, 1))))
			_ = s.SecretStore.Put(s.ctx, acme, "escrow-"+token.VersionID(value), value)
			s.waitOut()
			s.begin(p)
			s.present(p)
		}},
		"presented at the end of the lease": {"I1", func(s *story) {
			p := s.connect(1)
			s.begin(p)
			time.Sleep(s.Settings.Lease - s.Settings.RedeemTimeout + time.Second)
			s.present(p)
		}},
		"presented again after a refusal that led to nothing": {"I2", func(s *story) {
			p := s.connect(1)
			s.Issuer.Withdraw(s.ctx, p.AccessToken)
			s.begin(p)
			s.present(p)
			s.waitOut()
			s.begin(p)
			s.present(p)
		}},
		"presented again before the time of its retry": {"I2", func(s *story) {
			p := s.connect(1)
			s.Issuer.Withdraw(s.ctx, p.AccessToken)
			s.ask(p)
			s.scheduled().retry(p, 10*time.Minute)
		}},
		"presented again before the time of its second retry": {"I2", func(s *story) {
			p := s.connect(1)
			s.Issuer.Withdraw(s.ctx, p.AccessToken)
			s.ask(p)
			s.scheduled().retry(p, 15*time.Minute)
			s.scheduled().retry(p, 15*time.Minute)
		}},
		"presented again forever": {"I2", func(s *story) {
			p := s.connect(1)
			s.Issuer.Withdraw(s.ctx, p.AccessToken)
			s.ask(p)
			for range 5 {
				s.scheduled().retry(p, 24*time.Hour/4)
			}
			s.scheduled().retry(p, time.Hour)
		}},
		"a retry although a successor is saved": {"I2", func(s *story) {
			p := s.connect(1)
			s.begin(p)
			s.present(p)
			s.waitOut()
			s.ask(p)
			s.save(successor(p, 1, 1)) // late
			s.retry(p, 15*time.Minute)
		}},
		"presented again after a 429 although a successor is saved": {"I2", func(s *story) {
			p := s.connect(1)
			s.Issuer.Gate = Nth(1, "issuer.Redeem", Before, Fault{Kind: Throttle})
			s.begin(p)
			s.present(p)
			s.save(successor(p, 1, 1))
			s.begin(p)
			s.present(p)
		}},
		"a saved successor is forgotten": {"I3 at rest", func(s *story) {
			p := s.connect(1)
			s.begin(p)
			s.present(p)
			s.save(successor(p, 1, 1))
		}},
		"a saved first consent is forgotten": {"I3 at rest", func(s *story) {
			s.change(func(r *rotation.Record) { r.Status = rotation.Pending })
			s.exchange()
			m := response(1, 0, "attempt")
			m.Source = rotation.FromCode
			s.save(m)
		}},
		"a pair that came whole is rejected": {"I3 at rest", func(s *story) {
			p := s.connect(1)
			s.giveUp(p, rotation.Rejected)
			s.Issuer.Withdraw(s.ctx, p.AccessToken)
		}},
		"the current pair is from nowhere": {"I3 at rest", func(s *story) {
			s.connect(1)
			s.change(func(r *rotation.Record) { r.Current.Fingerprint = "nowhere" })
		}},
		"an answer that came late is forgotten": {"I4 at rest", func(s *story) {
			p := s.connect(1)
			s.begin(p)
			slow := &story{s.Harness, WithActor(s.ctx, "slow")}
			slow.present(p)
			s.waitOut()
			s.ask(p)
			slow.save(successor(p, 1, 1))
			record, responses, _ := s.Ledger.Load(s.ctx, acme)
			_, _ = s.Ledger.Write(s.ctx, rotation.Change{Record: record,
				Bury: []rotation.ResponseKey{responses[len(responses)-1].Key}})
		}},
		"a consent is asked for, and the issuer was never asked": {"I4", func(s *story) {
			s.connect(1)
			s.needsConsent()
		}},
		"a consent is asked for with a successor at hand": {"I4", func(s *story) {
			p := s.connect(1)
			s.begin(p)
			s.present(p)
			value := token.NewSecret(fmt.Sprintf(`{"escrow":1,"mint":%s}`, encode(successor(p, 1, 1))))
			_ = s.SecretStore.Put(s.ctx, acme, "escrow-"+token.VersionID(value), value)
			s.waitOut()
			s.begin(p)
			s.present(p)
			s.needsConsent()
		}},
		"a consent is asked for because the engine has ended the pair": {"I4", func(s *story) {
			p := s.connect(1)
			_ = s.Issuer.Revoke(s.ctx, Sandbox, p.AccessToken)
			s.ask(p)
		}},
		"a server refuses once by mistake, and is not asked again": {"I4 at rest", func(s *story) {
			p := s.connect(1)
			s.refuseOnce()
			s.ask(p)
		}},
		"a consent that waited too long is rejected": {"I3 at rest", func(s *story) {
			s.rejectConsent(rotation.Identity{ResourceOwner: "7", Login: "Pat@example.com"},
				rotation.Identity{ResourceOwner: "7", Login: "pat@example.com"})
		}},
		"a consent that was refreshed while it waited is forgotten": {"I3 at rest", func(s *story) {
			s.connect(1)
			m := response(2, 1, "attempt")
			s.save(m)
		}},
		"the row falls back": {"I5", func(s *story) {
			p := s.connect(1)
			s.rotate(p, 1, 1)
			s.change(func(r *rotation.Record) { r.Generation = 0 })
		}},
		"two pairs are decided for one position": {"I5", func(s *story) {
			s.connect(1)
			s.change(func(r *rotation.Record) { r.Current.Response.Attempt = "other" })
		}},
		"AWSCURRENT goes back": {"I6", func(s *story) {
			p := s.connect(1)
			old := s.SecretStore.Label(acme, current)
			s.rotate(p, 1, 1)
			_ = s.SecretStore.Promote(s.ctx, acme, old, s.SecretStore.Label(acme, current))
		}},
		"the secret store lags behind at rest": {"I6 at rest", func(s *story) {
			p := s.connect(1)
			s.begin(p)
			next := s.present(p)
			s.save(successor(p, 1, 1))
			s.decide(next, 1, 1)
		}},
		"the access token of a refresh is used before its pair is saved": {"I8", func(s *story) {
			p := s.connect(1)
			s.begin(p)
			s.Issuer.Accepts(s.ctx, s.present(p).AccessToken)
		}},
		"the access token of a code is used before its pair is saved": {"I8", func(s *story) {
			s.Issuer.Accepts(s.ctx, s.exchange().AccessToken)
		}},
		"the pair of an old epoch stays valid": {"I9 at rest", func(s *story) {
			s.connect(1)
			s.connect(2)
		}},
		"a disconnected pair stays valid": {"I9 at rest", func(s *story) {
			s.connect(1)
			s.change(func(r *rotation.Record) { r.Epoch, r.Status, r.Current = 2, rotation.Disconnected, nil })
		}},
		"a saved sibling stays valid": {"I9 at rest", func(s *story) {
			s.Issuer.Personality.Overlap = true
			p := s.connect(1)
			s.begin(p)
			slow := &story{s.Harness, WithActor(s.ctx, "slow")}
			slow.present(p)
			s.waitOut()
			s.change(func(r *rotation.Record) { r.Attempt = nil })
			s.rotateAs("second", p, 1, 1)
			slow.save(successor(p, 1, 1))
		}},
		"the pair of an answer that was never quarantined stays valid": {"I9 at rest", func(s *story) {
			s.giveUp(s.connect(1), rotation.Rejected)
		}},
		"a request ends with its caller": {"I7", func(s *story) {
			p := s.connect(1)
			s.begin(p)
			ctx, cancel := context.WithCancel(s.ctx)
			s.Issuer.Gate = Watch(s.Journal, func(_ context.Context, at Passage) Fault {
				if at.When != Before {
					return Fault{}
				}
				cancel()
				return Fault{Kind: Cancel}
			})
			(&story{s.Harness, ctx}).present(p)
		}},
		"an answer is given up because its caller is asked to stop": {"I7", func(s *story) {
			p := s.connect(1)
			s.begin(p)
			s.Issuer.Gate = Watch(s.Journal, Nth(1, "issuer.Redeem", Before, Fault{Kind: Cancel}))
			s.present(p)
			s.notice(rotation.NoticeUnsaved)
		}},
		"something is logged before an answer is saved": {"I7", func(s *story) {
			p := s.connect(1)
			s.begin(p)
			next := s.present(p)
			s.Logger().InfoContext(s.ctx, "got an answer")
			s.save(successor(p, 1, 1))
			s.decide(next, 1, 1)
			s.publish(next, 1, 1)
		}},
		"a run presents with its time nearly over": {"I7", func(s *story) {
			p := s.connect(1)
			s.begin(p)
			ctx, cancel := Within(s.ctx, s.Settings.RedeemTimeout+timeToSave-time.Second)
			defer cancel()
			m := successor(p, 1, 1)
			(&story{s.Harness, ctx}).present(p)
			s.save(m)
		}},
		"a run exchanges a code with its time nearly over": {"I7", func(s *story) {
			s.connect(1)
			ctx, cancel := Within(s.ctx, s.Settings.RedeemTimeout)
			defer cancel()
			(&story{s.Harness, ctx}).exchange()
			m := response(2, 0, "attempt")
			m.Source = rotation.FromCode
			s.save(m)
		}},
		"a secret is filled up": {"I7", func(s *story) {
			s.SecretStore.MaxVersions = 2
			p := s.connect(1)
			s.rotate(p, 1, 1)
			_ = s.SecretStore.Put(s.ctx, acme, id(3), token.NewSecret("one more"))
		}},
		"an answer is not saved first": {"I7", func(s *story) {
			p := s.connect(1)
			s.begin(p)
			s.present(p)
			s.change(func(r *rotation.Record) { r.DueAt = time.Now() })
		}},
		"an answer is dropped": {"I7", func(s *story) {
			p := s.connect(1)
			s.begin(p)
			s.present(p)
		}},
		"the answer to a code is not saved first": {"I7", func(s *story) {
			s.connect(1)
			s.exchange()
			s.change(func(r *rotation.Record) { r.DueAt = time.Now() })
		}},
		"the answer to a code is dropped": {"I7", func(s *story) {
			s.connect(1)
			s.exchange()
		}},
		"readers see an answer in escrow": {"I10", func(s *story) {
			p := s.connect(1)
			value := token.NewSecret(fmt.Sprintf(`{"escrow":1,"mint":%s}`, encode(successor(p, 1, 1))))
			id := "escrow-" + token.VersionID(value)
			_ = s.SecretStore.Put(s.ctx, acme, id, value)
			_ = s.SecretStore.Promote(s.ctx, acme, id, s.SecretStore.Label(acme, current))
		}},
		"readers see what is not decided": {"I10", func(s *story) {
			_ = s.SecretStore.Create(s.ctx, acme, id(1), document(s.exchange(), 1, 0))
		}},
		"readers see another connection": {"I10", func(s *story) {
			other := token.Connection{Environment: "sandbox", Name: "other"}
			_ = s.SecretStore.Create(s.ctx, other, id(1), document(s.exchange(), 1, 0))
		}},
		"readers see a token from nowhere": {"I10", func(s *story) {
			_ = s.SecretStore.Create(s.ctx, acme, id(1), document(token.Pair{AccessToken: token.NewSecret("forged")}, 1, 0))
		}},
		"two connections have one consent": {"I11", func(s *story) {
			record, _, _ := s.Ledger.Load(s.ctx, token.Connection{Environment: "sandbox", Name: "other"})
			record.Current = &rotation.Current{Fingerprint: s.connect(1).RefreshToken.Fingerprint()}
			_, _ = s.Ledger.Write(s.ctx, rotation.Change{Record: record, History: rowsOf(rotation.Record{}, record)})
		}},
		"a connection has the consent of somebody else": {"I11", func(s *story) {
			p := s.exchange()
			m := response(1, 0, "attempt")
			m.Source, m.Expect = rotation.FromCode, &rotation.Identity{ResourceOwner: "7"}
			s.save(m)
			s.decide(p, 1, 0)
		}},
		"a connection changes hands": {"I11", func(s *story) {
			s.connect(1)
			s.change(func(r *rotation.Record) { r.Pin = &rotation.Pin{ResourceOwner: "7"} })
			p := s.exchange()
			m := response(2, 0, "attempt")
			m.Source, m.Expect = rotation.FromCode, &rotation.Identity{}
			s.save(m)
			s.decide(p, 2, 0)
		}},
		"a code is presented twice": {"I12", func(s *story) {
			code := s.Issuer.Authorize(rotation.Identity{}, Sandbox.RedirectURI, "")
			for range 2 {
				s.Issuer.Redeem(s.ctx, Sandbox, rotation.Grant{Code: code, RedirectURI: Sandbox.RedirectURI})
			}
		}},
		"an app with refused credentials presents again": {"I14", func(s *story) {
			p := s.connect(1)
			s.runOf(func(s *story) {
				s.Issuer.Gate = Always("issuer.Redeem", Before, Fault{Kind: Deny})
				for range 3 {
					s.begin(p)
					s.present(p)
				}
			})
		}},
		"an app with faulty requests presents again": {"I14", func(s *story) {
			p := s.connect(1)
			s.runOf(func(s *story) {
				s.Issuer.FindsFault = 4
				for range 4 {
					s.begin(p)
					s.present(p)
				}
			})
		}},
		"a call has no deadline": {"I15", func(s *story) {
			s.Ledger.Gate = Watch(s.Journal, nil)
			_, _, _ = s.Ledger.Load(context.WithoutCancel(s.ctx), acme)
		}},
		"nobody is notified of a loss": {"I17 at rest", func(s *story) {
			p := s.connect(1)
			s.Issuer.Withdraw(s.ctx, p.AccessToken)
			s.begin(p)
			s.present(p)
			before, _, _ := s.Ledger.Load(s.ctx, acme)
			record := before
			record.Attempt, record.Status = nil, rotation.NeedsConsent
			_, _ = s.Ledger.Write(s.ctx, rotation.Change{Record: record, History: rowsOf(before, record)})
		}},
		"the notice of a loss was cut off by a fault": {"I17 at rest", func(s *story) {
			p := s.connect(1)
			s.Issuer.Withdraw(s.ctx, p.AccessToken)
			s.Notifier.Gate = Watch(s.Journal, Nth(1, "notifier.Notify", Before, Fault{Kind: Fail}))
			s.ask(p)
		}},
		"nobody is notified of an unknown result": {"I17 at rest", func(s *story) {
			p := s.connect(1)
			s.lose(Before)
			s.begin(p)
			s.change(func(r *rotation.Record) { r.Attempt.Presentations = 1 })
			s.present(p)
		}},
		"a notice is lost with its process, and no other process sends it": {"I17 at rest", func(s *story) {
			p := s.connect(1)
			s.Issuer.Withdraw(s.ctx, p.AccessToken)
			s.Notifier.Gate = Watch(s.Journal, Nth(1, "notifier.Notify", Before, Fault{Kind: Crash}))
			go s.ask(p)
		}},
		"nobody is notified that it works again": {"I17 at rest", func(s *story) {
			p := s.connect(1)
			s.refuseOnce()
			s.ask(p)
			next := s.retry(p, 15*time.Minute)
			s.save(successor(p, 1, 1))
			s.decide(next, 1, 1)
			s.publish(next, 1, 1)
		}},
		"people are notified of an event that never happened": {"I17 at rest", func(s *story) {
			s.connect(1)
			s.notice(rotation.NoticeNeedsConsent)
		}},
		"people are notified of a drift that never happened": {"I17 at rest", func(s *story) {
			s.connect(1)
			s.notice(rotation.NoticeDrift)
		}},
		"an attempt ends without a row": {"I18", func(s *story) {
			s.begin(s.connect(1))
			record, _, _ := s.Ledger.Load(s.ctx, acme)
			record.Attempt = nil
			_, _ = s.Ledger.Write(s.ctx, rotation.Change{Record: record})
		}},
		"a decision has no row": {"I18", func(s *story) {
			record, _, _ := s.Ledger.Load(s.ctx, acme)
			record.Current = &rotation.Current{Response: response(1, 0, "a").Key}
			_, _ = s.Ledger.Write(s.ctx, rotation.Change{Record: record})
		}},
		"a refresh token is logged": {"I13", func(s *story) {
			fmt.Fprintf(s.Log, "got %q", s.connect(1).RefreshToken.Reveal())
		}},
		"an access token is in the ledger": {"I13", func(s *story) {
			p := s.connect(1)
			s.change(func(r *rotation.Record) { r.Failures = []rotation.Failure{{Detail: p.AccessToken.Reveal()}} })
		}},
		"a response is not sealed": {"I13", func(s *story) {
			m := response(1, 1, "open")
			m.Sealed = []byte(s.connect(1).RefreshToken.Reveal())
			m.State = rotation.Rejected
			s.save(m)
		}},
		"a refresh token is in the secret store": {"I13", func(s *story) {
			_ = s.SecretStore.Put(s.ctx, acme, id(1), token.NewSecret(`"`+s.connect(1).RefreshToken.Reveal()+`"`))
		}},
		"the client secret is sent to people": {"I13", func(s *story) {
			_ = s.Notifier.Notify(s.ctx, rotation.Notice{Summary: "wrong secret " + Sandbox.ClientSecret.Reveal()})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			atAnyTime, atRest := runStory(t, Personality{}, test.steps)
			invariant, onlyAtRest := strings.CutSuffix(test.invariant, " at rest")
			if onlyAtRest && atAnyTime != nil {
				t.Errorf("Check says %v, which is only wrong at rest", atAnyTime)
			}
			err := atAnyTime
			if onlyAtRest {
				err = atRest
			}
			if err == nil || !strings.Contains(err.Error(), invariant+" is broken") {
				t.Errorf("got %v, want %s", err, invariant)
			}
			if form := Discloses(fmt.Sprint(err), Sandbox.ClientSecret); form != "" {
				t.Errorf("the finding itself discloses the secret")
			}
		})
	}
}
