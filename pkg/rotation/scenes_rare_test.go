package rotation_test

import (
	"context"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// What stands around the rotation of one connection: several of them, little
// time, one machine, damaged rows, and what a desk asks.

var rareScenes = []namedScene{
	{"many lose their consent, and a run with little time", scene{rare: true, before: loseMany, actors: []actor{hurried, inviter}}},
	{"many meet a server that finds fault", scene{rare: true, before: findFaultWithMany, actors: []actor{sweeper}}},
	{"a queue for turns", scene{rare: true, before: queueUp, actors: []actor{rotator("rotator"), hasty}}},
	{"a server that asks for time", scene{rare: true, before: tire, actors: []actor{rotator("rotator"), sweeper}}},
	{"a server that asks for seconds", scene{rare: true, before: tireForSeconds, actors: []actor{sweeper}}},
	{"one machine", scene{rare: true, before: unlimited, actors: []actor{alone, sweeper}}},
	{"damaged answers of an earlier life", scene{rare: true, before: damage, actors: []actor{rotator("rotator")}}},
	{"a code that is refused", scene{rare: true, actors: []actor{dawdler, sweeper}}},
	{"a desk, and a rotation", scene{rare: true, before: readToken, actors: []actor{rotator("rotator"), desk}}},
}

// others are connections beside acme.
func (b *bench) others(n int) (names []token.Connection) {
	b.settings.Concurrency = 1 // or a run has no order
	ctx := context.Background()
	for i := range n {
		c := token.Connection{Environment: "sandbox", Name: "other-" + string(rune('a'+i))}
		if _, err := rotation.Register(ctx, b.Ledger, b.Vault, b.settings.Stack, c); err != nil {
			panic(err)
		}
		b.consentTo(ctx, c)
		names = append(names, c)
	}
	b.deliver(ctx)
	time.Sleep(time.Hour)
	return names
}

// loseMany ends the consents of seven connections, acme's not.
func loseMany(b *bench) {
	for _, c := range b.others(7) {
		v, err := b.Vault.Current(context.Background(), c)
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

// faultfinder finds fault with the first three requests.
type faultfinder struct {
	*rotationtest.Issuer
	found int
}

func (f *faultfinder) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	if f.found++; f.found <= 3 {
		return rotation.Answer{Class: rotation.RequestFault, Detail: "HTTP 400 invalid_request"}
	}
	return f.Issuer.Redeem(ctx, app, grant)
}

func findFaultWithMany(b *bench) {
	b.others(3)
	b.issuer = &faultfinder{Issuer: b.Issuer}
}

// tire makes the server ask for time with each error.
func tire(b *bench) { b.Issuer.Wait = 20 * time.Minute }

// limiting asks the first request to wait.
type limiting struct {
	*rotationtest.Issuer
	told bool
}

func (l *limiting) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	if !l.told {
		l.told = true
		return rotation.Answer{Class: rotation.RateLimited, Wait: 8 * time.Second, Detail: "HTTP 429"}
	}
	return l.Issuer.Redeem(ctx, app, grant)
}

func tireForSeconds(b *bench) {
	b.others(2)
	b.issuer = &limiting{Issuer: b.Issuer}
}

// queueUp gives the turns of half a minute to others.
func queueUp(b *bench) {
	b.settings.RedeemRate = 6
	every := time.Second / 6
	for range 200 {
		if _, err := b.Pace.Turn(context.Background(), "sandbox", time.Now().Add(-9*every), every); err != nil {
			panic(err)
		}
	}
}

// readToken leaves the current refresh token on somebody's screen.
func readToken(b *bench) {
	seen := &odd{Issuer: b.Issuer, change: func(body string) string { return body }}
	_, _ = b.rotatorWith(seen).Rotate(context.Background(), acme)
	b.right = seen.right
	time.Sleep(time.Hour)
}

// unlimited is a vault that takes any number of versions.
func unlimited(b *bench) { b.settings.PutsPerDay = 0 }

// damage leaves answers of the epoch before the first whose bytes are damaged.
func damage(b *bench) {
	for i, sealed := range [][]byte{{}, {1, 255, 255, 0}} {
		m := rotation.Mint{Connection: acme, Key: rotation.MintKey{Attempt: string(rune('a' + i))}, Source: rotation.FromCode,
			SavedAt: time.Now(), State: rotation.Saved, Sealed: sealed, Stack: b.settings.Stack}
		if err := b.Ledger.SaveMint(context.Background(), m); err != nil {
			panic(err)
		}
	}
}

var (
	// hurried is a run without the time for a single connection.
	hurried = actor{"hurried", func(ctx context.Context, b *bench) {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		_, _ = b.rotator().Sweep(ctx)
	}}

	// inviter sweeps, and makes links for those who must consent.
	inviter = actor{"inviter", func(ctx context.Context, b *bench) {
		links := linker{"https://connect.example.com/connect/link"}
		_, _ = b.rotatorBut(func(cfg *rotation.Config) { cfg.Invitations = links }).Sweep(ctx)
	}}

	// alone is a process with nothing but the stores and the server.
	alone = actor{"alone", func(ctx context.Context, b *bench) {
		r := b.rotatorBut(func(cfg *rotation.Config) {
			cfg.FollowUps, cfg.Pace, cfg.Announcements, cfg.Log = nil, nil, nil, nil
		})
		_, _ = r.Rotate(ctx, acme)
		_, _ = r.Sweep(ctx)
	}}

	// dawdler brings a code that has run out.
	dawdler = actor{"dawdler", func(ctx context.Context, b *bench) {
		exchange, err := b.consents().Prepare(ctx, acme, b.epoch)
		if err != nil {
			return
		}
		code := b.Issuer.Authorize(pat, redirectURI, "")
		time.Sleep(11 * time.Minute)
		_, _ = exchange.Redeem(ctx, rotation.Consent{Code: code, RedirectURI: redirectURI})
	}}

	// desk asks about connections, and for what cannot be.
	desk = actor{"desk", func(ctx context.Context, b *bench) {
		nobody := token.Connection{Environment: "sandbox", Name: "nobody"}
		consents, r := b.consents(), b.rotator()
		for _, c := range []token.Connection{acme, nobody} {
			_, _ = consents.Standing(ctx, c)
			_, _ = consents.Prepare(ctx, c, 7)
			_ = consents.Import(ctx, c, token.NewSecret("from elsewhere"), "42")
			_, _ = r.ServiceAccount(ctx, c, "42")
			_, _ = r.Discard(ctx, c)
		}
		_, _ = r.Disconnect(ctx, nobody)
		asking, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		known, _ := rotation.CheckImports(asking, b.Ledger, map[token.Connection]token.Secret{acme: b.right, nobody: token.NewSecret("unknown")},
			func(int) func() { return func() {} })
		if known[acme] != nil {
			_ = known[acme].Error()
		}
		_, _ = rotation.Register(ctx, b.Ledger, b.Vault, b.settings.Stack, acme)
	}}
)
