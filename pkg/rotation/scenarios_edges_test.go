package rotation_test

import (
	"context"
	"fmt"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Delays at the edge of every budget, clocks that are wrong by hours, secrets with
// hardly any room, servers that refuse by mistake, and identities without a company.

var edgeScenarios = []namedScenario{
	{"a run at the edges of its time", scenario{rare: true, menu: atTheEdges, actors: []actor{function("function"),
		lateSweeper}}},
	{"a run at the edges of its time, and an impatient one", scenario{rare: true, menu: atTheEdges,
		actors: []actor{function("function"), impatient}}},
	{"two runs at the edges of their time", scenario{rare: true, menu: atTheEdges, actors: []actor{function("function 1"),
		function("function 2")}}},
	{"a first consent at the edges of its time", scenario{rare: true, pending: true, menu: atTheEdges,
		actors: []actor{timedCallback, lateSweeper}}},
	{"a consent and a rotation at the edges of their time", scenario{rare: true, menu: atTheEdges,
		actors: []actor{timedCallback, function("function")}}},
	{"a callback with little time", scenario{rare: true, pending: true, actors: []actor{hurriedCallback, lateSweeper}}},

	{"what a process with a clock three hours ahead leaves", scenario{rare: true, damage: ofWrongClock,
		before: runWrong(3 * time.Hour), actors: []actor{function("function"), lateSweeper}}},
	{"what a process with a clock three hours behind leaves", scenario{rare: true, before: runWrong(-3 * time.Hour),
		actors: []actor{function("function"), lateSweeper}}},
	{"a place in the queue for redeems that is three hours ahead", scenario{rare: true, before: reserveAhead,
		actors: []actor{function("function"), lateSweeper}}},

	{"a run that stands still in Begin, one that presents meanwhile, and one a minute later",
		scenario{rare: true, sure: true, before: slowDownRequests, menu: onlyOf("meanwhile"),
			actors: []actor{stuck(false), rotatorAfter("meanwhile", 10*time.Minute-2*time.Second), rotatorAfter("later",
				11*time.Minute)}}},
	{"a run that stands still after Begin, one that presents meanwhile, and one a minute later",
		scenario{rare: true, sure: true, before: slowDownRequests, menu: onlyOf("meanwhile"),
			actors: []actor{stuck(true), rotatorAfter("meanwhile", 10*time.Minute-2*time.Second), rotatorAfter("later",
				11*time.Minute)}}},
	{"an answer that comes ten minutes late to the secret store only, while another one presents",
		scenario{rare: true, sure: true, before: slowDownRequests, menu: standingStill,
			actors: []actor{forgetfulRotator, rotatorAfter("meanwhile", 10*time.Minute+3*time.Second)}}},
	{"a server that asks for time with its answer",
		scenario{rare: true, before: meet(func(b *harness) rotation.Issuer { return courteous{b.Issuer} }),
			actors: []actor{rotator("rotator"), sweeper}}},

	{"an import and a rotation, and an impatient one", scenario{rare: true, sure: true, pending: true,
		actors: []actor{importRotator, impatient}}},
	{"an import and a rotation, and a later sweep", scenario{rare: true, pending: true, actors: []actor{importRotator,
		lateSweeper}}},

	{"an answer in escrow, and two versions after it", scenario{rare: true, before: escrowBelowOthers,
		actors: []actor{rotator("rotator"), sweeper}}},
	{"an answer in escrow, two versions after it, and a consent", scenario{rare: true, before: escrowBelowOthers,
		actors: []actor{publishedConsent, sweeper}}},
	{"an old answer in escrow that cannot be read any more", scenario{rare: true, damage: ofObscurity,
		before: obscureEscrow, actors: []actor{rotator("rotator"), lateSweeper}}},
	{"a search for what was on its way, after an answer in escrow", scenario{rare: true, before: escrowOfToday,
		actors: []actor{sweeper, second}}},
	{"a secret with little room, after an answer in escrow", scenario{rare: true, sure: true,
		before: littleRoom(escrowOnce), actors: []actor{fourRotations}}},
	{"a secret with little room, after a crash in publishing", scenario{rare: true, sure: true,
		before: littleRoom(crashInPublishing), actors: []actor{fourRotations}}},

	{"a server that refuses by mistake", scenario{rare: true, before: refuseOnce, actors: []actor{sweeper, lateSweeper}}},
	{"a server that refuses by mistake, and an operator", scenario{rare: true, before: refuseOnce, actors: []actor{sweeper,
		second}}},
	{"a server that refuses an import by mistake", scenario{rare: true, pending: true, before: refuseOnce,
		actors: []actor{importer, sweeper}}},

	{"another user, where no company was asked for", scenario{rare: true, pending: true, before: connectAnywhere,
		actors: []actor{rotator("rotator"), otherUserAnywhere}}},
	{"a new owner, where no company was asked for", scenario{rare: true, pending: true, before: connectAnywhere,
		actors: []actor{newOwnerAnywhere, sweeper}}},
	{"another user, after an import that names no company", scenario{rare: true, pending: true, before: importAnywhere,
		actors: []actor{otherUserAnywhere, sweeper}}},
}

// atTheEdges has delays only.
var atTheEdges = rotationtest.Edges(rotation.DefaultSettings("harness"))

// standingStill is a menu with a freeze of ten minutes after a call was answered.
func standingStill(at rotationtest.Passage) []rotationtest.Fault {
	if at.When == before || at.Actor != forgetfulRotator.name {
		return nil
	}
	return []rotationtest.Fault{freeze(10 * time.Minute)}
}

// function is a run of AWS Lambda, with 15 minutes.
func function(name string) actor {
	return actor{name, func(ctx context.Context, b *harness) {
		ctx, cancel := rotationtest.Within(rotationtest.Scheduled(ctx), runTime)
		defer cancel()
		_, _ = b.rotator().Sweep(ctx)
	}}
}

var (
	// forgetfulRotator saves its answer in the secret store only.
	forgetfulRotator = actor{"rotator", func(ctx context.Context, b *harness) {
		_, _ = b.rotatorBut(func(cfg *rotation.Config) { cfg.Ledger = &forgetfulLedger{Ledger: b.Ledger} }).Rotate(ctx, acme)
	}}

	// timedCallback is a callback with the time that its function has.
	timedCallback = timed("callback", 90*time.Second)

	// hurriedCallback has too little time to save the answer.
	hurriedCallback = timed("callback", 25*time.Second)

	// importRotator imports a refresh token and has it redeemed at once.
	importRotator = actor{"importer", func(ctx context.Context, b *harness) {
		importer.act(ctx, b)
		_, _ = b.rotator().Rotate(ctx, acme)
	}}

	// fourRotations asks for one rotation after the other.
	fourRotations = actor{"four rotations", func(ctx context.Context, b *harness) {
		for range 4 {
			_, _ = b.rotator().Rotate(ctx, acme)
			time.Sleep(10 * time.Minute)
		}
	}}

	// otherUserAnywhere follows an invitation that names neither a user nor a company.
	otherUserAnywhere = actor{"other user", func(ctx context.Context, b *harness) {
		b.allow(ctx, at(sam, ""),
			rotation.Identity{})
	}}

	// newOwnerAnywhere is another user, who was invited with Repin.
	newOwnerAnywhere = actor{"new owner", func(ctx context.Context, b *harness) {
		b.allow(ctx, at(sam, ""),
			rotation.Identity{Repin: true})
	}}
)

// rotatorAfter rotates after a while.
func rotatorAfter(name string, after time.Duration) actor {
	return actor{name, func(ctx context.Context, b *harness) {
		time.Sleep(after)
		_, _ = b.rotator().Rotate(ctx, acme)
	}}
}

// stuck stands still for ten minutes in writing its attempt, or in reading it again.
func stuck(inLoad bool) actor {
	return actor{"stuck", func(ctx context.Context, b *harness) {
		_, _ = b.rotatorBut(func(cfg *rotation.Config) {
			cfg.Ledger = &stuckLedger{Ledger: b.Ledger,
				inLoad: inLoad}
		}).Rotate(ctx, acme)
	}}
}

// stuckLedger answers the first write, or the load after it, when ten minutes are over.
type stuckLedger struct {
	*rotationtest.Ledger
	inLoad, written, stood bool
}

func (l *stuckLedger) Write(ctx context.Context, change rotation.Change) (string, error) {
	revision, err := l.Ledger.Write(ctx, change)
	l.written = true
	l.stand(!l.inLoad)
	return revision, err
}

func (l *stuckLedger) Load(ctx context.Context, c token.Connection) (rotation.Record, []rotation.TokenResponse, error) {
	rec, responses, err := l.Ledger.Load(ctx, c)
	l.stand(l.inLoad && l.written)
	return rec, responses, err
}

func (l *stuckLedger) stand(still bool) {
	if still && !l.stood {
		l.stood = true
		time.Sleep(10 * time.Minute)
	}
}

// onlyOf is menu for one actor; the others have no faults.
func onlyOf(name string) func(rotationtest.Passage) []rotationtest.Fault {
	return func(at rotationtest.Passage) []rotationtest.Fault {
		if at.Actor != name {
			return nil
		}
		return menu(at)
	}
}

func timed(name string, d time.Duration) actor {
	return actor{name, func(ctx context.Context, b *harness) {
		ctx, cancel := rotationtest.Within(ctx, d)
		defer cancel()
		b.allow(ctx, pat, rotation.Identity{Company: "42"})
	}}
}

// runWrong lets a process with a wrong clock sweep and rotate, whatever it shares
// with others. No other process runs, because a lease does not protect against a clock that
// is wrong by more than the quiet period.
func runWrong(by time.Duration) func(*harness) {
	return func(b *harness) {
		accompanyEverywhere(b)
		ctx, cancel := context.WithTimeout(rotationtest.OffBy(context.Background(), by), runTime)
		defer cancel()
		_, _ = b.offBy(by).Sweep(rotationtest.Scheduled(ctx))
		_, _ = b.offBy(by).Rotate(ctx, acme)
		time.Sleep(time.Hour)
	}
}

// offBy is a process with a wrong clock.
func (b *harness) offBy(by time.Duration) *rotation.Rotator {
	return b.rotatorBut(func(cfg *rotation.Config) {
		cfg.Now = func() time.Time { return time.Now().Add(by) }
		cfg.RateLimiter = otherClock{b.RateLimiter, by}
	})
}

// otherClock is the shared rate limiter as a process with a wrong clock sees it.
// What reads the true time in that process would not do so elsewhere.
type otherClock struct {
	rotation.RateLimiter
	by time.Duration
}

func (o otherClock) Reserve(ctx context.Context, name string, earliest time.Time, every time.Duration) (time.Time,
	error) {
	if time.Since(earliest).Abs() > o.by.Abs()/2 { // already by the wrong clock
		return o.RateLimiter.Reserve(ctx, name, earliest, every)
	}
	at, err := o.RateLimiter.Reserve(ctx, name, earliest.Add(o.by), every)
	return at.Add(-o.by), err
}

// accompanyEverywhere adds connections in acme's environment and in another one.
func accompanyEverywhere(b *harness) {
	b.others(acme.Environment, 1)
	b.others("production", 1)
}

// reserveAhead is what a process with a clock three hours ahead has left.
func reserveAhead(b *harness) {
	accompanyEverywhere(b)
	for range 20 {
		if _, err := b.RateLimiter.Reserve(context.Background(), acme.Environment, time.Now().Add(3*time.Hour),
			time.Second); err != nil {
			panic(err)
		}
	}
}

// escrowOnce is a rotation with an answer that the ledger does not take at first.
func escrowOnce(b *harness) {
	_, _ = b.rotatorBut(func(cfg *rotation.Config) { cfg.Ledger = &forgetfulLedger{Ledger: b.Ledger} }).Rotate(
		context.Background(), acme)
}

// forgetfulLedger takes no answer, and from then on nothing for as long as lasting says.
type forgetfulLedger struct {
	*rotationtest.Ledger
	lasting, gone bool
}

func (l *forgetfulLedger) SaveResponse(context.Context, rotation.TokenResponse) error {
	l.gone = l.lasting
	return errTorn
}

func (l *forgetfulLedger) Write(ctx context.Context, change rotation.Change) (string, error) {
	if l.gone {
		return "", errTorn
	}
	return l.Ledger.Write(ctx, change)
}

// escrowBelowOthers leaves an answer in escrow. Its label has moved on to two
// later versions: what another release of the program would publish of the pair before.
func escrowBelowOthers(b *harness) {
	ctx := context.Background()
	_, _ = b.rotatorBut(func(cfg *rotation.Config) {
		cfg.Ledger = &forgetfulLedger{Ledger: b.Ledger,
			lasting: true}
	}).Rotate(ctx, acme)
	for n := range 2 {
		doc, err := b.read(ctx)
		if err != nil {
			panic(err)
		}
		doc.APIURL += fmt.Sprint("/release-", n)
		value, err := doc.Encode()
		if err != nil {
			panic(err)
		}
		if err := b.SecretStore.Put(ctx, acme, token.VersionID(value), value); err != nil {
			panic(err)
		}
	}
	time.Sleep(10 * time.Minute)
}

// obscureEscrow leaves an old answer in escrow, which cannot be read any more.
func obscureEscrow(b *harness) {
	escrowOnce(b)
	for range 3 {
		rotateOnce(b)
	}
	b.SecretStore.Obscure(acme)
}

// escrowOfToday leaves an answer of the current consent in escrow that is no longer current,
// on a server that ends the family if it is revoked. The search for late answers of the
// previous consent is about to come.
func escrowOfToday(b *harness) {
	b.Issuer.Personality.RevokesFamily = true
	b.consentTo(context.Background(), acme)
	b.deliver(context.Background())
	escrowOnce(b)
	_, _ = b.rotator().Rotate(context.Background(), acme)
	time.Sleep(20 * time.Minute)
}

// crashInPublishing is a rotation that ends before it could write that it has published.
func crashInPublishing(b *harness) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		secrets := &abruptSecretStore{b.SecretStore}
		_, _ = b.rotatorBut(func(cfg *rotation.Config) { cfg.SecretStore = secrets }).Rotate(context.Background(), acme)
	}()
	<-done
}

// abruptSecretStore ends the process that has moved AWSCURRENT.
type abruptSecretStore struct{ *rotationtest.SecretStore }

func (s *abruptSecretStore) Promote(ctx context.Context, c token.Connection, id, replaces string) error {
	_ = s.SecretStore.Promote(ctx, c, id, replaces)
	panic("the process ends")
}

// littleRoom gives the secret room for one version more than the budget says, of
// which a few are used up, some of them in ways that are easy to miss.
func littleRoom(use func(*harness)) func(*harness) {
	return func(b *harness) {
		b.settings.PutsPerDay = 6
		b.SecretStore.MaxVersions = 7
		for range 2 {
			rotateOnce(b)
		}
		use(b)
		time.Sleep(10 * time.Minute)
		_, _ = b.rotator().Sweep(rotationtest.Scheduled(context.Background()))
		time.Sleep(time.Hour)
	}
}

// slowDownRequests lets each request take five seconds.
func slowDownRequests(b *harness) { b.Issuer.Latency = 5 * time.Second }

// courteous asks for a wait with each answer.
type courteous struct{ *rotationtest.Issuer }

func (c courteous) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	answer := c.Issuer.Redeem(ctx, app, grant)
	answer.Wait = 30 * time.Second
	return answer
}

// refuseOnce makes the server refuse the next refresh by mistake.
func refuseOnce(b *harness) { b.Issuer.Personality.RefusesOnce = true }

// connectAnywhere connects without naming a company.
func connectAnywhere(b *harness) {
	if result, err := b.consent(context.Background(), at(pat, ""), rotation.Identity{}); result != rotation.Connected {
		panic(fmt.Sprintf("consent: %s, %v", result, err))
	}
	b.deliver(context.Background())
	time.Sleep(time.Hour)
}

// importAnywhere imports a refresh token of pat's without naming a company.
func importAnywhere(b *harness) {
	ctx := context.Background()
	answer := b.Issuer.Redeem(ctx, app, rotation.Grant{Code: b.Issuer.Authorize(at(pat, ""), redirectURI, ""),
		RedirectURI: redirectURI})
	if err := b.consents().Import(ctx, acme, b.Issuer.Parse(answer.Body).Pair.RefreshToken, ""); err != nil {
		panic(err)
	}
	b.deliver(ctx)
	_, _ = b.rotator().Rotate(ctx, acme)
	time.Sleep(time.Hour)
}
