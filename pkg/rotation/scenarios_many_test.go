package rotation_test

import (
	"context"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Several connections at the rate limiter, and runs that have little time.

var manyScenarios = []namedScenario{
	{"many lose their consent", scenario{long: true, before: loseMany, actors: []actor{inviter}}},
	{"three lose their consent, and a run with little time", scenario{rare: true, before: loseSome,
		actors: []actor{twentySecondRun, inviter}}},
	{"three have lost their consent, and two sweeps send the notice", scenario{rare: true, before: keepNoticePending,
		actors: []actor{inviter, sweeper}}},
	{"three lose their consent, and an operator finds one after the other", scenario{rare: true, before: loseSome,
		actors: []actor{oneByOne}}},
	{"two sweeps of two connections", scenario{rare: true, before: accompany, actors: []actor{sweeper, second}}},
	{"a run that ends while connections wait for the rate limiter, and its follow-up",
		scenario{rare: true, before: slowDown,
			actors: []actor{oneMinuteRun, nextRun}}},
	{"everything is rotated, and interrupted", scenario{rare: true, before: accompany, actors: []actor{interrupted,
		sweeper}}},
	{"many meet a server that finds fault", scenario{rare: true, before: findFaultWithMany, actors: []actor{sweeper}}},
	{"a queue at the rate limiter", scenario{rare: true, before: queueUp, actors: []actor{rotator("rotator"), shortRun}}},
	{"a queue at the rate limiter, and a caller that goes away", scenario{rare: true, before: queueUp,
		actors: []actor{cancelledSweep,
			rotator("rotator")}}},
	{"a server that asks for seconds, and a caller that goes away", scenario{rare: true, before: tireForSeconds,
		actors: []actor{cancelledSweep, sweeper}}},
	{"a server that asks for seconds", scenario{rare: true, before: tireForSeconds, actors: []actor{sweeper}}},
}

// wiped is the environment that Procore overwrites each month.
const wiped = "monthly-sandbox"

func other(environment string, i int) token.Connection {
	return token.Connection{Environment: environment, Name: "other-" + string(rune('a'+i))}
}

// others are connections beside acme.
func (b *harness) others(environment string, n int) (names []token.Connection) {
	b.settings.Concurrency = 1 // or a run has no order
	ctx := context.Background()
	theirs := app
	theirs.Environment = environment
	b.Applications.Set(theirs)
	for i := range n {
		c := other(environment, i)
		if _, err := rotation.Register(ctx, b.Ledger, b.SecretStore, b.settings.Stack, c); err != nil {
			panic(err)
		}
		b.consentTo(ctx, c)
		names = append(names, c)
	}
	b.deliver(ctx)
	time.Sleep(time.Hour)
	return names
}

// accompany adds a connection in acme's environment.
func accompany(b *harness) { b.others(acme.Environment, 1) }

// loseMany ends the consents of six connections, acme's not; loseSome those of
// just so many that they are one notice.
func loseMany(b *harness) { b.lose(b.others(wiped, 6)) }
func loseSome(b *harness) { b.lose(b.others(wiped, 3)) }

// keepNoticePending lets follow-ups find the lost consents. They leave the notice to sweeps.
func keepNoticePending(b *harness) {
	loseSome(b)
	for i := range 3 {
		_, _ = b.rotator().Do(context.Background(), rotation.Request{Op: "ensure", Connection: other(wiped, i).String(),
			MinTTLSeconds: 5000})
	}
	time.Sleep(5 * time.Minute)
}

func (b *harness) lose(connections []token.Connection) {
	for _, c := range connections {
		v, err := b.SecretStore.Current(context.Background(), c)
		if err != nil {
			panic(err)
		}
		doc, err := token.ParseDocument(v.Value)
		if err != nil {
			panic(err)
		}
		b.Issuer.Withdraw(context.Background(), doc.AccessToken)
	}
}

func findFaultWithMany(b *harness) {
	b.others(acme.Environment, 3)
	b.Issuer.FindsFault = 3
}

// limiting asks the first request to wait.
type limiting struct {
	*rotationtest.Issuer
	limited bool
}

func (l *limiting) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	if !l.limited {
		l.limited = true
		return rotation.Answer{Class: rotation.RateLimited, Wait: 8 * time.Second, Detail: "HTTP 429"}
	}
	return l.Issuer.Redeem(ctx, app, grant)
}

func tireForSeconds(b *harness) {
	b.others(acme.Environment, 2)
	b.issuer = &limiting{Issuer: b.Issuer}
}

// queueUp takes the reservations of half a minute.
func queueUp(b *harness) {
	b.settings.RedeemRate = 6
	every := time.Second / 6
	for range 200 {
		if _, err := b.RateLimiter.Reserve(context.Background(), "sandbox", time.Now().Add(-9*every), every); err != nil {
			panic(err)
		}
	}
}

// slowDown has three connections, and a reservation every ten seconds, the next one in ten.
func slowDown(b *harness) {
	b.others(acme.Environment, 2)
	b.settings.RedeemRate = 0.1
	for range 10 {
		if _, err := b.RateLimiter.Reserve(context.Background(), "sandbox", time.Now().Add(-90*time.Second),
			10*time.Second); err != nil {
			panic(err)
		}
	}
}

// links creates the same link for everyone.
type links struct{ gate rotationtest.Gate }

func (l links) Renew(ctx context.Context, rec rotation.Record, now time.Time) (token.Secret, time.Time, error) {
	link, err := rotationtest.Through(ctx, l.gate, "invitations.Renew", rec.Connection, func(bool) (token.Secret, error) {
		return token.NewSecret("https://connect.example.com/connect/link"), nil
	})
	return link, now.Add(72 * time.Hour), err
}

var (
	// second is another sweeper.
	second = actor{"second sweeper", sweeper.act}

	// oneMinuteRun is a run with the time for two reservations of slowDown.
	oneMinuteRun = actor{"one minute", func(ctx context.Context, b *harness) {
		ctx, cancel := rotationtest.Within(rotationtest.Scheduled(ctx), time.Minute)
		defer cancel()
		_, _ = b.rotator().Sweep(ctx)
	}}

	// nextRun delivers the follow-ups.
	nextRun = actor{"next run", func(ctx context.Context, b *harness) {
		time.Sleep(2*time.Minute + time.Second)
		queueConsumer.act(ctx, b)
	}}

	// oneByOne is an operator who rotates the connections of loseSome one by one.
	oneByOne = actor{"operator", func(ctx context.Context, b *harness) {
		for i := range 3 {
			_, _ = b.rotator().Rotate(ctx, other(wiped, i))
			time.Sleep(time.Minute)
		}
	}}

	// interrupted is an operator who rotates everything, and interrupts it
	// after the first.
	interrupted = actor{"operator", func(ctx context.Context, b *harness) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
		defer cancel()
		b.rotator().RotateAll(ctx, []token.Connection{acme, other(acme.Environment, 0)},
			func(rotation.ConnectionReport) { cancel() })
	}}

	// cancelledSweep is a sweep that is canceled after a second.
	cancelledSweep = actor{"cancelled", func(ctx context.Context, b *harness) {
		ctx, cancel := context.WithCancel(ctx)
		defer time.AfterFunc(time.Second, cancel).Stop()
		_, _ = b.rotator().Sweep(ctx)
	}}

	// twentySecondRun has too little time for a single connection.
	twentySecondRun = actor{"twenty seconds", func(ctx context.Context, b *harness) {
		ctx, cancel := rotationtest.Within(rotationtest.Scheduled(ctx), 20*time.Second)
		defer cancel()
		_, _ = b.rotator().Sweep(ctx)
	}}

	// inviter sweeps, and creates links for the people who must consent.
	inviter = actor{"inviter", func(ctx context.Context, b *harness) {
		_, _ = b.rotatorBut(func(cfg *rotation.Config) { cfg.Invitations = links{b.SecretStore.Gate} }).Sweep(
			rotationtest.Scheduled(ctx))
	}}
)
