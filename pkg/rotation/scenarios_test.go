package rotation_test

import (
	"context"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// scenarios are the worlds of the explorer. Each is small enough to try every list with one
// fault and one switch. Rare ones do not depend on the server, so one server is enough to
// try all of them. Long ones run at random only.
var scenarios = slices.Concat([]namedScenario{
	{"a rotator", scenario{actors: []actor{rotator("rotator")}}},
	{"a rotator and its recovery", scenario{actors: []actor{rotator("rotator")}, recovery: true}},
	{"two rotators", scenario{actors: []actor{rotator("rotator 1"), rotator("rotator 2")}}},
	{"a rotator and a later sweep", scenario{actors: []actor{rotator("rotator"), lateSweeper}}},
	{"a rotator and an impatient one", scenario{actors: []actor{rotator("rotator"), impatient}}},
	{"a rotator and a published consent", scenario{actors: []actor{rotator("rotator"), publishedConsent}}},
	{"a rotator and a sweep", scenario{actors: []actor{rotator("rotator"), sweeper}}},
	{"a rotator and a consent", scenario{actors: []actor{rotator("rotator"), consenter}}},
	{"a rotator and an import", scenario{actors: []actor{rotator("rotator"), importer}}},
	{"a rotator and a disconnect", scenario{actors: []actor{rotator("rotator"), disconnecter}}},
	{"a rotator and a withdrawal", scenario{actors: []actor{rotator("rotator"), withdrawer}}},
	{"a withdrawal that nobody has noticed", scenario{before: withdrawConsent, actors: []actor{rotator("rotator")}}},
	{"a rotator and a hand edit", scenario{rare: true, actors: []actor{rotator("rotator"), editor}}},
	{"a rotator and a roll back", scenario{rare: true, before: rotateOnce, actors: []actor{rotator("rotator"),
		rollbacker}}},
	{"a rotator and a deleted secret", scenario{rare: true, actors: []actor{rotator("rotator"), deleter}}},
	{"a rotator and a purged secret", scenario{rare: true, actors: []actor{rotator("rotator"), purger}}},
	{"a first consent and a sweep", scenario{pending: true, actors: []actor{publishedConsent, sweeper}}},
	{"two first consents", scenario{pending: true, actors: []actor{callback("callback 1"), callback("callback 2")}}},
	{"a quarantined answer is released", scenario{before: quarantineAnswer, actors: []actor{releaser, sweeper}}},
	{"a quarantined answer is discarded", scenario{before: quarantineAnswer, actors: []actor{discarder, consenter}}},
	{"a rotator and a reader", scenario{rare: true, actors: []actor{rotator("rotator"), reader}}},
	{"a short run and a sweep", scenario{rare: true, actors: []actor{shortRun, sweeper}}},
	{"a rotator and a consent of another user", scenario{actors: []actor{rotator("rotator"), otherUser}}},
	{"a rotator and another client secret", scenario{rare: true, actors: []actor{rotator("rotator"), secretResetter}}},
	{"a restored table", scenario{before: restore, actors: []actor{rotator("rotator"), sweeper}}},
	{"a consent where one is needed", scenario{before: lose, actors: []actor{publishedConsent, sweeper}}},
	{"an import after a disconnect", scenario{before: disconnectFirst, actors: []actor{importer, sweeper}}},
	{"an import of a token that is spent", scenario{pending: true, actors: []actor{lateImporter, sweeper}}},
	{"a first import and a sweep", scenario{pending: true, actors: []actor{importer, sweeper}}},
	{"an import after the table was lost", scenario{rare: true, before: startOver, actors: []actor{importer, sweeper}}},
	{"two callbacks", scenario{actors: []actor{callback("callback 1"), callback("callback 2")}}},
	{"a consent and a disconnect", scenario{actors: []actor{consenter, disconnecter}}},
	{"a consent and a publisher", scenario{rare: true, actors: []actor{consenter, publisher}}},
	{"a disconnect of an expired pair", scenario{age: 100 * time.Minute, actors: []actor{disconnecter}}},
	{"a rotator, a consent and a disconnect", scenario{rare: true, actors: []actor{rotator("rotator"), consenter,
		disconnecter}}},
	{"a rotator and consents of other users", scenario{rare: true, actors: []actor{rotator("rotator"), otherUsers}}},
	{"a connection that is handed over", scenario{rare: true, actors: []actor{newOwner, sweeper}}},
	{"a rotator and another app", scenario{rare: true, actors: []actor{rotator("rotator"), appReplacer}}},
	{"a rotator and a misconfigured one", scenario{rare: true, actors: []actor{rotator("rotator"), misconfigured}}},
	{"a rotator and another installation", scenario{rare: true, actors: []actor{rotator("rotator"), otherStackWriter}}},
	{"a rotator and bad requests", scenario{rare: true, actors: []actor{rotator("rotator"), badRequests}}},
	{"everything is rotated, and swept", scenario{rare: true, actors: []actor{rotateEverything, sweeper}}},
	{"a fault in the program", scenario{rare: true,
		before: meet(func(b *harness) rotation.Issuer { return &panicking{Issuer: b.Issuer} }),
		actors: []actor{rotator("rotator"), sweeper}}},
	{"a server that rambles", scenario{rare: true,
		before: meet(func(b *harness) rotation.Issuer { return withExtraText(b.Issuer) }), actors: []actor{rotator("rotator"),
			consenter}}},
	{"a server that answers too much", scenario{rare: true,
		before: meet(func(b *harness) rotation.Issuer { return withHugeAnswers(b.Issuer) }),
		actors: []actor{rotator("rotator"),
			consenter}}},
	{"a server that contradicts itself", scenario{rare: true,
		before: meet(func(b *harness) rotation.Issuer { return withSeveralTokens(b.Issuer) }),
		actors: []actor{rotator("rotator"),
			consenter}}},
	{"a server that says little", scenario{rare: true,
		before: meet(func(b *harness) rotation.Issuer { return withoutLifetime(b.Issuer) }),
		actors: []actor{rotator("rotator"),
			sweeper}}},
	{"a server that finds fault with requests", scenario{rare: true,
		before: meet(func(b *harness) rotation.Issuer { return &faultFinding{Issuer: b.Issuer} }),
		actors: []actor{rotator("rotator"), sweeper}}},
	{"another lifetime than before", scenario{rare: true, before: hurry, actors: []actor{rotator("rotator"), sweeper}}},
	{"another release of the program", scenario{rare: true, before: upgrade, actors: []actor{rotator("rotator"),
		sweeper}}},
	{"a row with a response that is gone", scenario{rare: true, damage: ofLoss, before: forget,
		actors: []actor{rotator("rotator"), sweeper}}},
}, shortScenarios, manyScenarios, serviceScenarios, rareScenarios, edgeScenarios)

// namedScenario is a scenario with the name it has in reports.
type namedScenario struct {
	name string
	scenario
}

func rotateOnce(b *harness) {
	_, _ = b.rotator().Rotate(context.Background(), acme)
	time.Sleep(time.Hour)
}

// withdrawConsent withdraws the consent while the secret has an earlier version.
func withdrawConsent(b *harness) {
	rotateOnce(b)
	withdrawer.act(context.Background(), b)
}

// restore restores the table as it was two generations ago.
func restore(b *harness) {
	back := b.Ledger.Backup()
	rotateOnce(b)
	rotateOnce(b)
	back()
}

// lose withdraws the consent, and lets a run find that.
func lose(b *harness) {
	withdrawer.act(context.Background(), b)
	rotateOnce(b)
}

// disconnectFirst disconnects.
func disconnectFirst(b *harness) {
	_, _ = b.rotator().Disconnect(context.Background(), acme)
	time.Sleep(time.Hour)
	_, _ = b.rotator().Sweep(context.Background())
}

// loseTable creates the table again, with a row for acme.
func loseTable(b *harness) {
	b.Ledger.Drop()
	_, _ = rotation.Register(context.Background(), b.Ledger, b.SecretStore, "neighbor", acme) // is refused
	if _, err := rotation.Register(context.Background(), b.Ledger, b.SecretStore, b.settings.Stack, acme); err != nil {
		panic(err)
	}
}

// startOver withdraws the consent and loses the table; the secret stays.
func startOver(b *harness) {
	withdrawer.act(context.Background(), b)
	loseTable(b)
}

// quarantineAnswer gets an answer with two refresh tokens in it, which waits for a person.
func quarantineAnswer(b *harness) {
	two := withSeveralTokens(b.Issuer)
	_, _ = b.rotatorWith(two).Rotate(context.Background(), acme)
	b.right = two.right
	time.Sleep(10 * time.Minute)
}

// meet replaces the issuer of the actors.
func meet(issuer func(*harness) rotation.Issuer) func(*harness) {
	return func(b *harness) { b.issuer = issuer(b) }
}

// hurry lets access tokens live for an hour from now on.
func hurry(b *harness) { b.Issuer.Personality.Lifetime = time.Hour }

// upgrade makes the row one of a release that publishes other bytes.
func upgrade(b *harness) {
	b.rewrite(func(r *rotation.Record) rotation.Change {
		r.Current.VersionID, r.Published = "of another release", ""
		return rotation.Change{}
	})
}

// forget loses the response of the current pair.
func forget(b *harness) {
	b.rewrite(func(r *rotation.Record) rotation.Change {
		return rotation.Change{Bury: []rotation.ResponseKey{r.Current.Response}}
	})
}

// rewrite changes the row by hand.
func (b *harness) rewrite(edit func(*rotation.Record) rotation.Change) {
	rec, _, err := b.Ledger.Load(context.Background(), acme)
	if err != nil {
		panic(err)
	}
	change := edit(&rec)
	change.Record = rec
	if _, err := b.Ledger.Write(context.Background(), change); err != nil {
		panic(err)
	}
}
