package fsck_test

import (
	"database/sql"
	"errors"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/tokenturn/tokenturn/pkg/fsck"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

const day = 24 * time.Hour

// damage is a change to a sound installation, with the kind and connection of its finding.
type damage struct {
	kind  fsck.Kind
	of    token.Connection // zero: acme
	wreak func(t *testing.T, in *installation)
}

// damages are one or more of each kind. next is the answer that acme's next rotation would
// have saved, former one of an earlier rotation.
func damages(next, former rotation.TokenResponse) map[string]damage {
	late := next // saved, but no run came
	late.SavedAt = ago(2 * day)
	row := func(change func(*rotation.Record)) func(*testing.T, *installation) {
		return func(t *testing.T, in *installation) { in.edit(t, acme, change) }
	}
	saved := func(m rotation.TokenResponse, change func(*rotation.TokenResponse)) func(*testing.T, *installation) {
		change(&m)
		return func(t *testing.T, in *installation) { in.save(t, acme, m) }
	}
	shown := func(change func(*token.Document)) func(*testing.T, *installation) {
		return func(t *testing.T, in *installation) { in.publish(t, change) }
	}
	attempt := func(fingerprint token.Fingerprint, until time.Duration) func(*rotation.Record) {
		return func(r *rotation.Record) {
			if fingerprint == "current" {
				fingerprint = r.Current.Fingerprint
			}
			r.Attempt = &rotation.Attempt{ID: "a", Fingerprint: fingerprint, BegunAt: ago(0), Until: time.Now().Add(until),
				Presentations: 1}
			r.DueAt = ago(0)
		}
	}
	failure := func(f ...rotation.Failure) func(*rotation.Record) {
		return func(r *rotation.Record) { r.Failures = f }
	}
	waiting := rotation.Failure{Step: rotation.Redeem, Class: "store", Count: 1, NextAt: time.Now()}
	puts := func(at ...time.Duration) func(*rotation.Record) {
		return func(r *rotation.Record) {
			r.Puts = nil
			for _, d := range at {
				r.Puts = append(r.Puts, time.Now().Add(d).Unix())
			}
		}
	}
	refused := func(at time.Time, nextIn time.Duration, noticePending bool) func(*rotation.Record) {
		return func(r *rotation.Record) {
			r.Status, r.NoticePending, r.DueAt = rotation.NeedsConsent, noticePending, ago(0)
			r.Refusal = &rotation.Refusal{At: at, Tries: 4, NextAt: time.Now().Add(nextIn)}
		}
	}
	garbled := func(c token.Connection, m rotation.TokenResponse) func(*testing.T, *installation) {
		m.Sealed = slices.Clone(m.Sealed)
		m.Sealed[len(m.Sealed)-1] ^= 1
		return func(t *testing.T, in *installation) { in.save(t, c, m) }
	}
	return map[string]damage{
		// Rows.
		"of another installation": {fsck.RowOfOtherStack, acme, row(func(r *rotation.Record) { r.Stack = "two" })},
		"an unknown status":       {fsck.StatusUnknown, acme, row(func(r *rotation.Record) { r.Status = "asleep" })},
		"pending with a version": {fsck.PendingWithPair, fresh, func(t *testing.T, in *installation) {
			in.edit(t, fresh, func(r *rotation.Record) { r.Published = "v" })
		}},
		"disconnected with an attempt": {fsck.DisconnectedWithPair, gone, func(t *testing.T, in *installation) {
			in.edit(t, gone, func(r *rotation.Record) { r.Attempt = &rotation.Attempt{ID: "a"} })
		}},
		"disconnected with its pair": {fsck.DisconnectedWithPair, acme,
			row(func(r *rotation.Record) { r.Status, r.DueAt = rotation.Disconnected, ago(0) })},
		"active without a pair": {fsck.CurrentMissing, acme, func(t *testing.T, in *installation) {
			in.write(t, acme, func(r *rotation.Record) rotation.Change {
				key := r.Current.Response
				r.Current = nil
				return rotation.Change{Bury: []rotation.ResponseKey{key}}
			})
		}},
		"active without a pin": {fsck.PinMissing, acme, row(func(r *rotation.Record) { r.Pin = nil })},
		"pinned to production": {fsck.PinOfOtherEnvironment, acme,
			row(func(r *rotation.Record) { r.Pin.Environment = "production" })},
		"refused without a refusal": {fsck.RefusalMissing, acme,
			row(func(r *rotation.Record) { r.Status = rotation.NeedsConsent })},
		"active with a refusal": {fsck.RefusalLeft, acme,
			row(func(r *rotation.Record) { r.Refusal = &rotation.Refusal{At: ago(0)} })},
		"refused, and no notice was sent": {fsck.NoticeOverdue, acme, row(refused(ago(day), time.Hour, true))},
		"refused, and tried again late":   {fsck.WaitTooLong, acme, row(refused(ago(day), 7*day, false))},
		"no fingerprint": {fsck.FingerprintMissing, acme,
			row(func(r *rotation.Record) { r.Current.Fingerprint = "" })},
		"another fingerprint": {fsck.FingerprintDiffers, acme,
			row(func(r *rotation.Record) { r.Current.Fingerprint = "another" })},
		"another generation": {fsck.PositionDiffers, acme, row(func(r *rotation.Record) { r.Generation++ })},
		"another epoch": {fsck.PositionDiffers, acme,
			row(func(r *rotation.Record) { r.Epoch++; r.DueAt = ago(0) })},
		"another time of saving": {fsck.RowTimesDiffer, acme,
			row(func(r *rotation.Record) { r.Current.SavedAt = r.Current.SavedAt.Add(time.Minute) })},
		"another expiry": {fsck.RowTimesDiffer, acme, row(func(r *rotation.Record) {
			r.Current.ExpiresAt = r.Current.ExpiresAt.Add(-time.Minute)
		})},
		"an ancestor of its own": {fsck.AncestorNotBefore, acme, row(func(r *rotation.Record) {
			r.Ancestor = &rotation.ResponseKey{Epoch: r.Epoch, Generation: r.Generation, Attempt: "x"}
		})},
		"quarantined without a response": {fsck.QuarantineDiffers, acme,
			row(func(r *rotation.Record) { r.Quarantined = true })},
		"the token of another": {fsck.PairShared, acme, func(t *testing.T, in *installation) {
			rec, _, err := in.Ledger().Load(t.Context(), acme)
			must(t, err)
			in.write(t, gone, func(r *rotation.Record) rotation.Change {
				now := ago(0)
				*r = rotation.Record{Connection: gone, Revision: r.Revision, Stack: r.Stack, Epoch: r.Epoch,
					Status: rotation.Active, ServiceAccount: true,
					Pin: &rotation.Pin{Environment: "sandbox"}, DueAt: now, Current: &rotation.Current{SavedAt: now, IssuedAt: now,
						Fingerprint: rec.Current.Fingerprint, Response: rotation.ResponseKey{Epoch: r.Epoch}}}
				return rotation.Change{History: []rotation.Event{{At: now, Kind: "decided", Epoch: r.Epoch}}}
			})
		}},
		"a token that was imported elsewhere": {fsck.ImportedElsewhere, acme, func(t *testing.T, in *installation) {
			rec, _, err := in.Ledger().Load(t.Context(), acme)
			must(t, err)
			in.edit(t, beta, func(r *rotation.Record) { r.Imported = []token.Fingerprint{rec.Current.Fingerprint} })
		}},

		// Attempts, waits and due times.
		"an attempt for nothing":      {fsck.AttemptWithoutFingerprint, acme, row(attempt("", time.Minute))},
		"an attempt for another pair": {fsck.AttemptOfOtherPair, acme, row(attempt("another", time.Minute))},
		"an attempt for a week":       {fsck.AttemptFarAhead, acme, row(attempt("current", 7*day))},
		"an attempt for no consent": {fsck.ConsentAttemptAlone, acme, row(func(r *rotation.Record) {
			r.ConsentAttempt = &rotation.ConsentAttempt{Consent: "c", Attempt: rotation.Attempt{ID: "a", Until: ago(0)}}
		})},
		"a failure of nothing": {fsck.FailureOfNothing, acme,
			row(failure(rotation.Failure{Step: rotation.Revoke, Response: former.Key, NextAt: ago(0)}))},
		"a failure of a search that is over": {fsck.FailureOfNothing, acme,
			row(failure(rotation.Failure{Step: rotation.Revoke, Class: "store", Count: 1, NextAt: ago(0)}))},
		"a failure twice": {fsck.FailureTwice, acme, row(failure(waiting, waiting))},
		"a wait of a week": {fsck.WaitTooLong, acme, row(failure(rotation.Failure{Step: rotation.Redeem,
			Class: "store", Count: 1, NextAt: time.Now().Add(7 * day)}))},
		"a search next week": {fsck.SearchFarAhead, acme,
			row(func(r *rotation.Record) { r.SearchAt = time.Now().Add(7 * day) })},
		"never due":           {fsck.DueMissing, acme, row(func(r *rotation.Record) { r.DueAt = time.Time{} })},
		"due next week":       {fsck.DueLate, acme, row(func(r *rotation.Record) { r.DueAt = time.Now().Add(7 * day) })},
		"due since last week": {fsck.Overdue, acme, row(func(r *rotation.Record) { r.DueAt = ago(7 * day) })},
		"puts out of order":   {fsck.PutsUnsorted, acme, row(puts(-time.Hour, -20*time.Hour))},
		"a put of tomorrow":   {fsck.PutsAhead, acme, row(puts(-time.Hour, day))},
		"puts without end":    {fsck.PutsTooMany, acme, row(puts(slices.Repeat([]time.Duration{-time.Hour}, 200)...))},
		"a search of last month": {fsck.Overdue, acme, row(func(r *rotation.Record) {
			r.SearchAt, r.DueAt = ago(30*day), ago(30*day)
		})},

		// Saved responses.
		"the current one is nowhere": {fsck.CurrentLost, acme, func(t *testing.T, in *installation) {
			in.write(t, acme, func(r *rotation.Record) rotation.Change {
				r.Published, r.Current.VersionID = "", "another"
				r.DueAt = ago(0)
				return rotation.Change{Bury: []rotation.ResponseKey{r.Current.Response}}
			})
			in.sql(t, `DELETE FROM label WHERE connection = 'sandbox/acme';
				DELETE FROM version WHERE connection = 'sandbox/acme'`)
		}},
		"the current one is only in the secret": {fsck.CurrentOnlyShown, acme, func(t *testing.T, in *installation) {
			in.write(t, acme, func(r *rotation.Record) rotation.Change {
				return rotation.Change{Bury: []rotation.ResponseKey{r.Current.Response}}
			})
		}},
		"the current one is garbled": {fsck.CurrentUnopenable, beta, func(t *testing.T, in *installation) {
			garbled(beta, in.current(t, beta))(t, in)
		}},
		"a saved one is garbled": {fsck.ResponseUnopenable, acme, garbled(acme, next)},
		"sealed for another connection": {fsck.SealedForOther, beta, func(t *testing.T, in *installation) {
			m := in.current(t, beta)
			m.Sealed = in.current(t, acme).Sealed
			in.save(t, beta, m)
		}},
		"one of another connection": {fsck.ResponseOfOtherConnection, acme, func(t *testing.T, in *installation) {
			// A port would save it in the right place.
			in.save(t, acme, late)
			in.sql(t, `UPDATE mint SET json = json_set(json, '$.connection', 'sandbox/beta')
				WHERE connection = 'sandbox/acme' AND generation = 3`)
		}},
		"one of another installation": {fsck.ResponseOfOtherStack, acme,
			saved(next, func(m *rotation.TokenResponse) { m.Stack = "two" })},
		"an unknown state": {fsck.ResponseStateUnknown, acme,
			saved(next, func(m *rotation.TokenResponse) { m.State = "lost" })},
		"rejected for no reason": {fsck.ReasonMissing, acme,
			saved(next, func(m *rotation.TokenResponse) { m.State = rotation.Rejected })},
		"quarantined for no reason": {fsck.ReasonMissing, acme, func(t *testing.T, in *installation) {
			saved(next, func(m *rotation.TokenResponse) { m.State = rotation.Quarantined })(t, in)
			in.edit(t, acme, func(r *rotation.Record) { r.Quarantined = true })
		}},
		"of an epoch to come": {fsck.EpochAhead, acme, saved(next, func(m *rotation.TokenResponse) { m.Key.Epoch += 2 })},
		"of a generation to come": {fsck.GenerationAhead, acme,
			saved(next, func(m *rotation.TokenResponse) { m.Key.Generation++ })},
		"saved tomorrow": {fsck.SavedAhead, acme,
			saved(next, func(m *rotation.TokenResponse) { m.SavedAt = time.Now().Add(day) })},
		"saved and not decided": {fsck.Undecided, acme, saved(late, func(*rotation.TokenResponse) {})},
		"an orphan that no run revokes": {fsck.OrphanLives, acme, func(t *testing.T, in *installation) {
			saved(former, func(m *rotation.TokenResponse) { m.Key.Epoch, m.SavedAt = 0, ago(3*day) })(t, in)
			in.happened(t, acme, rotation.Event{At: ago(2 * day), Kind: "disconnected", Epoch: 1})
		}},
		"one after a disconnect": {fsck.OrphanLives, gone, func(t *testing.T, in *installation) {
			in.edit(t, gone, func(r *rotation.Record) { r.SearchAt, r.DueAt = time.Time{}, time.Time{} })
			m := in.current(t, beta)
			m.Connection, m.Key.Epoch, m.SavedAt = gone, 0, ago(3*day)
			in.save(t, gone, m)
			in.happened(t, gone, rotation.Event{At: ago(2 * day), Kind: "disconnected", Epoch: 1})
		}},
		"two of one pair": {fsck.TwoSuccessors, acme, func(t *testing.T, in *installation) {
			for _, attempt := range []string{"one", "two"} {
				saved(late, func(m *rotation.TokenResponse) { m.Key.Attempt = attempt })(t, in)
			}
		}},

		// Secrets.
		"no secret": {fsck.SecretMissing, acme, func(t *testing.T, in *installation) {
			in.sql(t, `DELETE FROM label WHERE connection = 'sandbox/acme';
				DELETE FROM version WHERE connection = 'sandbox/acme'`)
		}},
		"a secret to be deleted": {fsck.SecretDeleted, acme, func(t *testing.T, in *installation) {
			_, err := in.Deletions().Schedule(t.Context(), acme, 7*day)
			must(t, err)
		}},
		"a secret without a row": {fsck.UnknownSecret, token.Connection{Environment: "sandbox", Name: "nobody"},
			func(t *testing.T, in *installation) {
				value := token.NewSecret("{}")
				must(t, in.SecretStore().Create(t.Context(), token.Connection{Environment: "sandbox", Name: "nobody"},
					token.VersionID(value), value))
			}},
		"no AWSCURRENT": {fsck.LabelMissing, acme, func(t *testing.T, in *installation) {
			in.sql(t, `DELETE FROM label WHERE connection = 'sandbox/acme' AND label = 'AWSCURRENT'`)
		}},
		"AWSCURRENT above": {fsck.LabelAbove, acme, func(t *testing.T, in *installation) {
			in.show(t, in.document(t, func(d *token.Document) { d.Generation += 5 }))
		}},
		"AWSCURRENT above a new row": {fsck.RowBelowSecret, acme, row(func(r *rotation.Record) {
			*r = rotation.Record{Connection: acme, Revision: r.Revision, Stack: r.Stack, Status: rotation.Pending, DueAt: ago(0)}
		})},
		"AWSCURRENT below": {fsck.LabelBelow, acme, func(t *testing.T, in *installation) {
			versions, err := in.SecretStore().Versions(t.Context(), acme) // newest first
			must(t, err)
			must(t, in.SecretStore().Promote(t.Context(), acme, versions[1].ID, versions[0].ID))
		}},
		"AWSCURRENT elsewhere": {fsck.LabelElsewhere, acme, func(t *testing.T, in *installation) {
			in.show(t, in.document(t, func(d *token.Document) { d.CompanyID = "43" }))
		}},
		"the published version is gone": {fsck.VersionMissing, acme,
			row(func(r *rotation.Record) { r.Published = "another" })},
		"a version that cannot be read": {fsck.VersionUnreadable, acme, func(t *testing.T, in *installation) {
			in.sql(t, `UPDATE version SET sealed = x'00' WHERE connection = 'sandbox/acme' AND id =
				(SELECT id FROM label WHERE connection = 'sandbox/acme' AND label = 'AWSPREVIOUS')`)
		}},
		"other bytes than its id says": {fsck.VersionDiffers, acme, func(t *testing.T, in *installation) {
			value := in.document(t, func(d *token.Document) { d.CompanyID = "43" })
			must(t, in.SecretStore().Put(t.Context(), acme, token.VersionID(token.NewSecret("another")), value))
		}},
		"no document": {fsck.ValueNotDocument, acme, func(t *testing.T, in *installation) {
			id := in.show(t, token.NewSecret(`{"hello":"operator"}`))
			in.edit(t, acme, func(r *rotation.Record) { r.Published, r.Current.VersionID = id, id })
		}},
		"no document at all of ours": {fsck.ValueNotDocument, acme,
			func(t *testing.T, in *installation) { in.show(t, token.NewSecret("hello")) }},
		"the document of another": {fsck.DocumentOfOtherConnection, acme,
			shown(func(d *token.Document) { d.Connection = beta })},
		"a document of another installation": {fsck.DocumentOfOtherStack, acme,
			shown(func(d *token.Document) { d.Stack = "two" })},
		"a document of production": {fsck.DocumentOfOtherEnvironment, acme,
			shown(func(d *token.Document) { d.Environment = "production" })},
		"an expiry of its own": {fsck.DocumentTimesDiffer, acme,
			shown(func(d *token.Document) { d.ExpiresAt = d.ExpiresAt.Add(time.Minute) })},
		"a beginning of its own": {fsck.DocumentTimesDiffer, acme,
			shown(func(d *token.Document) { d.CreatedAt = d.CreatedAt.Add(time.Minute) })},
		"an access token of its own": {fsck.DocumentDiffers, acme,
			shown(func(d *token.Document) { d.AccessToken = token.NewSecret("another") })},
		"another sealed answer": {fsck.DocumentDiffers, acme,
			shown(func(d *token.Document) { d.SealedAnswer = former.Sealed })},
		"an open refresh token": {fsck.OpenRefreshToken, acme, func(t *testing.T, in *installation) {
			value := withField(in.document(t, func(*token.Document) {}), "refresh_token", "anything")
			must(t, in.SecretStore().Put(t.Context(), acme, token.VersionID(value), value))
		}},
		"an open refresh token under another name": {fsck.OpenRefreshToken, acme, func(t *testing.T, in *installation) {
			opened, err := rotation.NewOpener(in.Sealer(), in.issuer).Open(t.Context(), in.current(t, acme))
			must(t, err)
			value := withField(in.document(t, func(*token.Document) {}), "spare", opened.Pair.RefreshToken.Reveal())
			must(t, in.SecretStore().Put(t.Context(), acme, token.VersionID(value), value))
		}},
		"escrow that no run took": {fsck.EscrowLeft, acme, func(t *testing.T, in *installation) {
			id, value := escrowed(t, late)
			must(t, in.SecretStore().Put(t.Context(), acme, id, value))
		}},

		// Histories.
		"an event of tomorrow": {fsck.HistoryAhead, acme, func(t *testing.T, in *installation) {
			in.happened(t, acme, rotation.Event{At: time.Now().Add(day).UTC(), Kind: "registered"})
		}},
		"a decision out of order": {fsck.HistoryOutOfOrder, acme, func(t *testing.T, in *installation) {
			in.happened(t, acme, rotation.Event{At: ago(day), Kind: "decided", Epoch: 1, Generation: 7})
		}},
		"a decision twice": {fsck.DecidedTwice, acme, func(t *testing.T, in *installation) {
			in.happened(t, acme, rotation.Event{At: time.Now().UTC(), Kind: "decided", Epoch: 1, Generation: 2})
		}},
		"a decision without history": {fsck.DecisionWithoutHistory, acme, func(t *testing.T, in *installation) {
			in.sql(t, `DELETE FROM event WHERE connection = 'sandbox/acme' AND json_extract(json, '$.generation') = 2`)
		}},
		"a token that is spent": {fsck.CurrentSpent, acme, func(t *testing.T, in *installation) {
			rec, _, err := in.Ledger().Load(t.Context(), acme)
			must(t, err)
			in.happened(t, acme, rotation.Event{At: ago(day), Kind: "decided", Epoch: 0, Generation: 9,
				Spent: rec.Current.Fingerprint})
		}},
		"a token among the spent ones": {fsck.CurrentSpent, acme,
			row(func(r *rotation.Record) { r.Spent = append(r.Spent, r.Current.Fingerprint) })},
	}
}

// Each damage is found as its own kind and as no other.
func TestEveryDamageIsFound(t *testing.T) {
	base, next, former := build(t)
	for name, d := range damages(next, former) {
		t.Run(string(d.kind)+"/"+name, func(t *testing.T) {
			in := base.copy(t)
			d.wreak(t, in)
			report, err := fsck.Check(t.Context(), in.config())
			must(t, err)
			is := func(f fsck.Finding) bool { return f.Kind == d.kind && f.Connection == d.of }
			if !slices.ContainsFunc(report.Findings, is) {
				t.Errorf("the damage is not found")
			}
			for _, f := range report.Findings {
				t.Logf("%s %s: %s\n→ %s", f.Kind, f.Connection, f.Detail, f.Remedy)
				if f.Kind != d.kind {
					t.Errorf("%s is found, but was not done", f.Kind)
				}
				if f.Detail == "" || f.Remedy == "" {
					t.Errorf("a finding without detail or remedy: %+v", f)
				}
			}
		})
	}
}

// Every kind is tried, and its comment names the rule that it breaks.
func TestEveryKindIsTriedAndExplained(t *testing.T) {
	tried := map[string]bool{string(fsck.KeyFileMode): true} // by TestKeyFile
	for _, d := range damages(rotation.TokenResponse{Sealed: []byte{0}}, rotation.TokenResponse{}) {
		tried[string(d.kind)] = true
	}
	file, err := parser.ParseFile(gotoken.NewFileSet(), "kinds.go", nil, parser.ParseComments)
	must(t, err)
	kinds := 0
	ast.Inspect(file, func(n ast.Node) bool {
		c, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, named := c.Type.(*ast.Ident); !named || id.Name != "Kind" {
			return false
		}
		kinds++
		value := strings.Trim(c.Values[0].(*ast.BasicLit).Value, `"`)
		if !tried[value] || !strings.HasPrefix(c.Doc.Text(), c.Names[0].Name+": ") {
			t.Errorf("%s is not tried, or has no comment", value)
		}
		return false
	})
	if kinds < 30 {
		t.Errorf("there are %d kinds", kinds)
	}
	t.Logf("%d kinds", kinds)
}

// A sound installation has no findings, whole or in part. Without permission to open
// answers, the report says what was not checked.
func TestASoundInstallation(t *testing.T) {
	base, _, _ := build(t)
	in := base.copy(t)
	for _, only := range [][]token.Connection{nil, {acme}, {gone, fresh}} {
		report, err := fsck.Check(t.Context(), in.config(), only...)
		if want := max(len(only), len(all)*(1-min(1, len(only)))); err != nil || len(report.Findings) != 0 ||
			len(report.NotMade) != 0 || report.Connections != want {
			t.Errorf("%+v, %v", report, err)
		}
	}
	for _, sealer := range []rotation.Sealer{nil, keyless{in.Sealer()}} {
		cfg := in.config()
		cfg.Sealer = sealer
		report, err := fsck.Check(t.Context(), cfg)
		if err != nil || len(report.Findings) != 0 || len(report.NotMade) != 1 || report.NotMade[0].Connections != 2 ||
			report.NotMade[0].Reason == "" {
			t.Errorf("%+v, %v", report, err)
		}
	}
	nobody := token.Connection{Environment: "sandbox", Name: "nobody"}
	if _, err := fsck.Check(t.Context(), in.config(), nobody); !errors.Is(err, fsck.ErrUnknown) {
		t.Errorf("error %v", err)
	}
}

// Only its owner may read the key file.
func TestKeyFile(t *testing.T) {
	if found := fsck.KeyFile("k", 0o600); len(found) != 0 {
		t.Errorf("%+v", found)
	}
	if found := fsck.KeyFile("k", 0o640); len(found) != 1 || found[0].Kind != fsck.KeyFileMode ||
		found[0].Remedy != "if no other user can have read it, run: chmod 600 'k'" {
		t.Errorf("%+v", found)
	}
}

func runSQL(t *testing.T, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	must(t, err)
	_, err = db.ExecContext(t.Context(), statement)
	must(t, errors.Join(err, db.Close()))
}

// The command that a remedy names first removes the damage. A consent ends the pairs of the
// other copies of the installation, so it comes last.
func TestRemediesHelp(t *testing.T) {
	base, next, former := build(t)
	command := regexp.MustCompile(`^(?:restore the table .* if there is none, )?[^:;]*: tokenturn connection (\w+)`)
	tried := map[string]map[string]func(*testing.T){"rotate": {}, "undo": {}, "invite": {}}
	for name, d := range damages(next, former) {
		in := base.copy(t)
		d.wreak(t, in)
		report, err := fsck.Check(t.Context(), in.config())
		must(t, err)
		named := command.FindStringSubmatch(report.Findings[0].Remedy)
		if named == nil || tried[named[1]] == nil {
			continue
		}
		tried[named[1]][string(d.kind)+"/"+name] = func(t *testing.T) {
			t.Parallel()
			in.help(t, named[1], d.of)
			report, err := fsck.Check(t.Context(), in.config(), d.of)
			must(t, err)
			for _, f := range report.Findings {
				t.Errorf("%s is still found: %s", f.Kind, f.Detail)
			}
		}
	}
	for _, verb := range []string{"rotate", "undo", "invite"} {
		t.Run(verb, func(t *testing.T) {
			for name, try := range tried[verb] {
				t.Run(name, try)
			}
		})
	}
}

// help carries out the command of a remedy.
func (in *installation) help(t *testing.T, verb string, c token.Connection) {
	t.Helper()
	switch verb {
	case "rotate":
		in.later = time.Minute // the run that brought a pair has half a lease to publish it
		_, err := in.rotator(t).Rotate(t.Context(), c)
		must(t, err)
	case "undo":
		must(t, in.Deletions().Cancel(t.Context(), c))
	case "invite":
		_, err := rotation.Register(t.Context(), in.ledger, in.secrets, settings.Stack, c)
		must(t, err)
		in.connect(t, c)
	}
}
