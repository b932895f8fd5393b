package rotation

import (
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

var (
	noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	acme = token.Connection{Environment: "sandbox", Name: "acme"}
)

// active is a published connection with a 90-minute token that was saved at noon.
func active() Record {
	return Record{Connection: acme, Revision: "1", Epoch: 1, Generation: 5, Status: Active, Published: "v5",
		Current: &Current{Fingerprint: "fp5", Response: ResponseKey{1, 5, "a5"}, VersionID: "v5", SavedAt: noon,
			IssuedAt:  noon,
			ExpiresAt: noon.Add(90 * time.Minute), Lifetime: 5400},
		DueAt: noon.Add(20 * time.Minute)}
}

func currentResponse() TokenResponse {
	return TokenResponse{Connection: acme, Key: ResponseKey{1, 5, "a5"}, Parent: "fp4", Source: FromRefresh, SavedAt: noon,
		State: Saved}
}

func successorResponse() TokenResponse {
	return TokenResponse{Connection: acme, Key: ResponseKey{1, 6, "a6"}, Parent: "fp5", Source: FromRefresh,
		SavedAt: noon.Add(time.Hour), State: Saved}
}

// refusedBefore is a refusal that long before the hour, with so many repetitions since.
func refusedBefore(ago time.Duration, tries int) func(*situation) {
	return func(s *situation) {
		s.rec.Status, s.rec.Refusal = NeedsConsent, &Refusal{At: s.now.Add(-ago), Tries: tries}
		s.rec.Refusal.schedule(s.rec.Refusal.At)
	}
}

func TestPlanTakesTheFirstRowThatFits(t *testing.T) {
	settings := DefaultSettings("test")
	due := noon.Add(time.Hour)
	attempt := func(until time.Time) *Attempt {
		return &Attempt{ID: "a6", Fingerprint: "fp5", Until: until, Presentations: 1}
	}
	ancestor := &ResponseKey{1, 4, "a4"}
	consent := TokenResponse{Connection: acme, Key: ResponseKey{2, 0, "c"}, Source: FromCode, SavedAt: due, State: Saved}
	tests := []struct {
		name    string
		now     time.Time
		change  func(*situation)
		step    Step
		outcome Outcome
	}{
		{"fresh", noon.Add(10 * time.Minute), nil, Nothing, Fresh},
		{"due", due, nil, Redeem, ""},
		{"forced", noon.Add(time.Minute), func(s *situation) { s.force = true }, Redeem, ""},
		{"publish spends nothing", due, func(s *situation) { s.publishOnly = true }, Nothing, Fresh},
		{"enough life left", noon.Add(30 * time.Minute), func(s *situation) { s.minTTL = 30 * time.Minute }, Nothing, Fresh},
		{"too little life left", noon.Add(70 * time.Minute), func(s *situation) { s.minTTL = 30 * time.Minute }, Redeem, ""},
		{"more than a new token could give", noon.Add(10 * time.Minute), func(s *situation) { s.minTTL = 90 * time.Minute },
			Nothing, Fresh},
		{"more than a new token could give, expired", noon.Add(91 * time.Minute),
			func(s *situation) { s.minTTL = 2 * time.Hour }, Redeem, ""},
		{"follow-up of this generation", noon.Add(89 * time.Minute), func(s *situation) {
			s.minTTL, s.onlyAt = 10*time.Minute,
				&ResponseKey{Epoch: 1, Generation: 5}
		}, Redeem, ""},
		{"superseded follow-up", noon.Add(89 * time.Minute), func(s *situation) {
			s.minTTL, s.onlyAt = 10*time.Minute,
				&ResponseKey{Epoch: 1, Generation: 4}
		}, Nothing, Fresh},
		{"a saved successor", due, func(s *situation) { s.responses = append(s.responses, successorResponse()) }, Decide, ""},
		{"a saved successor beats a live attempt", due, func(s *situation) {
			s.responses, s.rec.Attempt = append(s.responses, successorResponse()), attempt(due.Add(time.Minute))
		}, Decide, ""},
		{"a saved successor heals needs_consent", due, func(s *situation) {
			s.responses, s.rec.Status = append(s.responses,
				successorResponse()), NeedsConsent
		}, Decide, ""},
		{"a response of other lineage", due, func(s *situation) {
			m := successorResponse()
			m.Parent = "fp9"
			s.responses = append(s.responses, m)
		}, Redeem, ""},
		{"a consent", due, func(s *situation) { s.responses = append(s.responses, consent) }, Decide, ""},
		{"a consent that cannot be checked yet", due, func(s *situation) {
			s.responses = append(s.responses, consent)
			s.rec.Failures = []Failure{{Step: Decide, Response: consent.Key, NextAt: due.Add(time.Minute)}}
		}, Redeem, ""},
		{"a successor that cannot be opened yet", due, func(s *situation) {
			s.responses = append(s.responses, successorResponse())
			s.rec.Failures = []Failure{{Step: Decide, Response: successorResponse().Key, NextAt: due.Add(time.Minute)}}
		}, Wait, Deferred},
		{"not published", due, func(s *situation) { s.rec.Published = "v4" }, Publish, ""},
		{"not published, just obtained by another run", noon.Add(10 * time.Second),
			func(s *situation) { s.rec.Published, s.rec.Ancestor = "v4", ancestor }, Wait, Busy},
		{"not published, just obtained by another run, asked to publish", noon.Add(10 * time.Second),
			func(s *situation) { s.rec.Published, s.rec.Ancestor, s.publishOnly = "v4", ancestor, true }, Publish, ""},
		{"just published, and the secret was changed since", noon.Add(10 * time.Second),
			func(s *situation) { s.rec.Published = "" }, Publish, ""},
		{"not published, just obtained by this run", noon.Add(10 * time.Second), func(s *situation) {
			s.rec.Published,
				s.presented = "v4", "a5"
		}, Publish, ""},
		{"a first consent is published by anybody", noon.Add(time.Second), func(s *situation) {
			s.rec.Published, s.rec.Generation, s.rec.Current.Response.Generation = "", 0, 0
			s.responses = nil
		}, Publish, ""},
		{"not published, the secret store is down", due, func(s *situation) {
			s.rec.Published, s.rec.Failures = "v4", []Failure{{Step: Publish, NextAt: due.Add(time.Minute)}}
		}, Wait, Deferred},
		{"a quarantined successor", due, func(s *situation) {
			m := successorResponse()
			m.State = Quarantined
			s.responses = append(s.responses, m)
			s.rec.judgeAgain(m.Key, settings.Quiet, due)
		}, Quarantine, InQuarantine},
		{"a quarantined successor, to be judged again", due, func(s *situation) {
			m := successorResponse()
			m.State = Quarantined
			s.responses = append(s.responses, m)
			s.rec.judgeAgain(m.Key, settings.Quiet, due.Add(-settings.Quiet))
		}, Decide, ""},
		{"a live attempt", due, func(s *situation) { s.rec.Attempt = attempt(due.Add(time.Second)) }, Wait, Busy},
		{"an attempt that ran out", due, func(s *situation) { s.rec.Attempt = attempt(due) }, Recover, ""},
		{"recovery found nothing, quiet period", due, func(s *situation) {
			s.rec.Attempt,
				s.searched = attempt(due.Add(-settings.Quiet+1)), true
		}, Recover, Unknown},
		{"recovery found nothing, quiet period over", due, func(s *situation) {
			s.rec.Attempt,
				s.searched = attempt(due.Add(-settings.Quiet)), true
		}, Redeem, ""},
		{"my own attempt, saved in the secret store", due, func(s *situation) {
			s.rec.Attempt,
				s.presented = attempt(due.Add(time.Minute)), "a6"
		}, Recover, ""},
		{"asked to wait", due, func(s *situation) {
			s.rec.Failures = []Failure{{Step: Redeem, Class: classRateLimited, NextAt: due.Add(1)}}
		}, Wait, Deferred},
		{"misconfigured", due, func(s *situation) {
			s.rec.Failures = []Failure{{Step: Redeem, Class: classConfig,
				NextAt: due.Add(1)}}
		}, Wait, ConfigError},
		{"waited long enough", due, func(s *situation) { s.rec.Failures = []Failure{{Step: Redeem, NextAt: due}} }, Redeem,
			""},
		{"an orphan", noon.Add(time.Minute), func(s *situation) {
			s.responses = append(s.responses, TokenResponse{Key: ResponseKey{1, 5, "other"}, State: Saved, Source: FromRefresh})
		}, Revoke, ""},
		{"an orphan waits for a due rotation", due, func(s *situation) {
			s.responses = append(s.responses, TokenResponse{Key: ResponseKey{1, 5, "other"}, State: Saved, Source: FromRefresh})
		}, Redeem, ""},
		{"the ancestor is no orphan", noon.Add(time.Minute), func(s *situation) {
			s.rec.Ancestor = &ResponseKey{1, 4, "a4"}
			s.responses = append(s.responses, TokenResponse{Key: ResponseKey{1, 4, "a4"}, State: Saved, Source: FromRefresh})
		}, Nothing, Fresh},
		{"needs consent, what was given up stays, so that its copy in the secret store is not taken for a new response", due,
			func(s *situation) {
				m := successorResponse()
				m.State = Rejected
				s.rec.Status, s.searched, s.responses = NeedsConsent, true, append(s.responses, m)
			}, Nothing, ConsentNeeded},
		{"needs consent, due for a search", due, refusedBefore(15*time.Minute, 0), Recover, ""},
		{"needs consent, not due", due, refusedBefore(14*time.Minute, 0), Nothing, ConsentNeeded},
		{"needs consent, searched in vain, due for a repetition", due, func(s *situation) {
			refusedBefore(15*time.Minute, 0)(s)
			s.searched = true
		}, Redeem, ""},
		{"needs consent, asked by a person", due, func(s *situation) {
			refusedBefore(time.Minute, 0)(s)
			s.force = true
		}, Recover, ""},
		{"needs consent, asked by a person, searched in vain", due, func(s *situation) {
			refusedBefore(time.Minute, 0)(s)
			s.force, s.searched = true, true
		}, Redeem, ""},
		{"needs consent, all repetitions used up, searched in vain", due, func(s *situation) {
			refusedBefore(72*time.Hour, 4)(s)
			s.searched = true
		}, Nothing, ConsentNeeded},
		{"needs consent, publishing presents nothing", due, func(s *situation) {
			refusedBefore(time.Hour, 0)(s)
			s.publishOnly = true
		}, Nothing, ConsentNeeded},
		{"a consent that waits does not hide a saved successor", due, func(s *situation) {
			s.responses = append(s.responses, consent, successorResponse())
			s.rec.Failures = []Failure{{Step: Decide, Response: consent.Key, NextAt: due.Add(time.Minute)}}
		}, Decide, ""},
		{"a consent that was refreshed before it could be checked", due, func(s *situation) {
			next := TokenResponse{Connection: acme, Key: ResponseKey{2, 1, "d"}, Source: FromRefresh, Consent: "c", SavedAt: due,
				State: Saved}
			s.responses = append(s.responses, consent, next)
			s.rec.Failures = []Failure{{Step: Decide, Response: next.Key, NextAt: due.Add(time.Minute)}}
		}, Redeem, ""}, // the consent itself is spent, and hides nothing
		{"pending", due, func(s *situation) {
			s.rec, s.responses = Record{Connection: acme, Revision: "1", Status: Pending},
				nil
		}, Nothing, ConsentNeeded},
		{"disconnected", due, func(s *situation) {
			s.rec, s.responses, s.force = Record{Connection: acme, Revision: "1", Status: Disconnected, Epoch: 2}, nil, true
		}, Nothing, NotFound},
		{"disconnected, pair not yet revoked", due, func(s *situation) {
			s.rec = Record{Connection: acme, Revision: "1", Status: Disconnected, Epoch: 2}
		}, Revoke, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := situation{rec: active(), responses: []TokenResponse{currentResponse()}, now: test.now, settings: settings}
			if test.change != nil {
				test.change(&s)
			}
			got := plan(s)
			if got.outcome != test.outcome || test.outcome == "" && got.step != test.step {
				t.Errorf("plan = %s %q, want %s %q", got.step, got.outcome, test.step, test.outcome)
			}
		})
	}
}

func TestOfSeveralDecidableResponsesTheHigherEpochThenTheEarliestWins(t *testing.T) {
	late, early := successorResponse(), successorResponse()
	late.Key.Attempt, late.SavedAt = "late", early.SavedAt.Add(time.Second)
	consent := TokenResponse{Key: ResponseKey{2, 0, "c"}, Source: FromCode, SavedAt: late.SavedAt.Add(time.Hour),
		State: Saved}
	if got := candidates(active(), []TokenResponse{late, early}); len(got) != 2 || got[0].Key != early.Key {
		t.Errorf("of two siblings %v was chosen, want the earlier one", got)
	}
	if got := candidates(active(), []TokenResponse{early, consent}); len(got) != 2 || got[0].Key != consent.Key {
		t.Errorf("beside a consent %v was chosen, want the consent", got)
	}
	skipped := TokenResponse{Key: ResponseKey{3, 0, "c"}, Source: FromCode, State: Saved}
	if got := candidates(active(), []TokenResponse{skipped}); len(got) != 0 {
		t.Errorf("a consent two epochs ahead was chosen: %v", got)
	}
}

func TestDueTimesFollowTheLifetime(t *testing.T) {
	hourly := DefaultSettings("test")
	frequent := hourly
	frequent.Cadence = time.Minute
	tests := []struct {
		name        string
		settings    Settings
		lifetime    time.Duration
		early, late time.Duration // of redeemAt, after saving
		ensure      time.Duration // after saving; 0: none
	}{
		{"90 minutes, hourly", hourly, 90 * time.Minute, 873 * time.Second, 1200 * time.Second, 0},
		{"two hours, hourly", hourly, 2 * time.Hour, 2500 * time.Second, 3000 * time.Second, 0},
		{"15 minutes, hourly", hourly, 15 * time.Minute, 873 * time.Second, 873 * time.Second, 875 * time.Second},
		{"90 minutes, every minute", frequent, 90 * time.Minute, 4300 * time.Second, 4740 * time.Second, 0},
		{"shorter than the secret store can follow", hourly, time.Minute, 35 * time.Second, 35 * time.Second, 0},
		{"lifetime not stated", hourly, 0, 873 * time.Second, 873 * time.Second, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cur := Current{VersionID: "v", SavedAt: noon, IssuedAt: noon,
				ExpiresAt: noon.Add(test.lifetime), Lifetime: Seconds(test.lifetime / time.Second)}
			at := test.settings.redeemAt(acme, cur).Sub(noon)
			if at < test.early || at > test.late {
				t.Errorf("due after %v, want between %v and %v", at, test.early, test.late)
			}
			ensure := test.settings.ensureAt(acme, cur)
			if test.ensure == 0 && !ensure.IsZero() || test.ensure > 0 && !ensure.Equal(noon.Add(test.ensure)) {
				t.Errorf("follow-up at %v, want %v after saving", ensure, test.ensure)
			}
		})
	}
	unlimited := hourly
	unlimited.PutsPerDay = 0
	cur := Current{VersionID: "v", SavedAt: noon, IssuedAt: noon, ExpiresAt: noon.Add(time.Minute), Lifetime: 60}
	if got := unlimited.ensureAt(acme, cur); !got.Equal(noon.Add(35 * time.Second)) {
		t.Errorf("without a limit a one-minute token is followed up at %v, want 35 s after saving", got)
	}
}

func TestEveryStateHasItsDueTime(t *testing.T) {
	settings := DefaultSettings("test")
	now := noon.Add(10 * time.Minute)
	in := func(d time.Duration) time.Time { return now.Add(d) }
	quarantined := successorResponse()
	quarantined.State = Quarantined
	tests := []struct {
		name   string
		change func(*Record, *[]TokenResponse)
		want   time.Time
	}{
		{"attempt", func(r *Record, _ *[]TokenResponse) { r.Attempt = &Attempt{Until: in(time.Minute)} },
			in(3 * time.Minute)},
		{"undecided successor", func(_ *Record, m *[]TokenResponse) { *m = append(*m, successorResponse()) }, now},
		{"unpublished", func(r *Record, _ *[]TokenResponse) { r.Published = "v4" }, now},
		{"failure", func(r *Record, _ *[]TokenResponse) {
			r.Failures = []Failure{{Step: Redeem, NextAt: in(12 * time.Minute)}}
		}, in(12 * time.Minute)},
		{"failure noted by a clock ahead", func(r *Record, _ *[]TokenResponse) {
			r.Failures = []Failure{{Step: Publish, NextAt: in(3 * time.Hour)}}
			r.Published = "v4"
		}, now},
		{"failure while unpublished", func(r *Record, _ *[]TokenResponse) {
			r.Published, r.Failures = "v4", []Failure{{Step: Publish, NextAt: in(time.Minute)}}
		}, in(time.Minute)},
		{"quarantine", func(r *Record, m *[]TokenResponse) {
			*m = append(*m, quarantined)
			r.judgeAgain(quarantined.Key, settings.Quiet, now)
		}, in(settings.Quiet)},
		{"quarantine after the quiet period", func(r *Record, m *[]TokenResponse) {
			*m = append(*m, quarantined)
			r.judgeAgain(quarantined.Key, settings.Quiet, now)
			r.judgeAgain(quarantined.Key, settings.Quiet, now)
		}, in(daily)},
		{"needs consent, later", func(r *Record, _ *[]TokenResponse) {
			r.Status, r.Refusal = NeedsConsent, &Refusal{At: noon, Tries: 4, NextAt: in(daily)}
		}, in(daily)},
		{"needs consent, to be presented again", func(r *Record, _ *[]TokenResponse) {
			r.Status, r.Refusal = NeedsConsent, &Refusal{At: noon, NextAt: in(5 * time.Minute)}
		}, in(5 * time.Minute)},
		{"a consent that waits while the pair is fresh", func(r *Record, m *[]TokenResponse) {
			consent := TokenResponse{Key: ResponseKey{2, 0, "c"}, Source: FromCode, State: Saved}
			*m, r.Failures = append(*m, consent), []Failure{{Step: Decide, Response: consent.Key, NextAt: in(time.Minute)}}
		}, in(time.Minute)},
		{"pending", func(r *Record, m *[]TokenResponse) { *r, *m = Record{Connection: acme, Status: Pending}, nil },
			time.Time{}},
		{"disconnected", func(r *Record, m *[]TokenResponse) { *r, *m = Record{Connection: acme, Status: Disconnected}, nil },
			time.Time{}},
		{"disconnected with a pair to revoke", func(r *Record, _ *[]TokenResponse) {
			*r = Record{Connection: acme,
				Status: Disconnected, Epoch: 2}
		}, now},
		{"disconnected with a search to come", func(r *Record, m *[]TokenResponse) {
			*r, *m = Record{Connection: acme, Status: Disconnected, SearchAt: in(time.Hour)}, nil
		}, in(time.Hour)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			rec, responses := active(), []TokenResponse{currentResponse()}
			rec.DueAt = now
			test.change(&rec, &responses)
			if got := settings.dueAt(rec, responses, now); !got.Equal(test.want) {
				t.Errorf("due at %v, want %v", got, test.want)
			}
		})
	}
}
