package rotation_test

import (
	"context"
	"errors"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// What stands around the rotation of one connection: one machine, damaged rows,
// and what a desk asks.

var rareScenes = []namedScene{
	{"a server that asks for time", scene{rare: true, before: tire, actors: []actor{rotator("rotator"), sweeper}}},
	{"one machine", scene{rare: true, before: unlimited, actors: []actor{alone, sweeper}}},
	{"damaged answers of an earlier life", scene{rare: true, before: damage, actors: []actor{rotator("rotator")}}},
	{"a code that is refused", scene{rare: true, actors: []actor{dawdler, sweeper}}},
	{"two rotators whose clocks differ", scene{rare: true, actors: []actor{ahead, behind}}},
	{"a rotator whose clock is ahead, and a disconnect", scene{rare: true, actors: []actor{ahead, disconnecter}}},
	{"a rotator, and one that finds no app credentials", scene{rare: true, actors: []actor{rotator("rotator"), unset}}},
	{"an answer that could not be opened is discarded", scene{rare: true, before: sealAway, actors: []actor{discarder, sweeper}}},
	{"an answer that cannot be opened is discarded", scene{rare: true, before: sealAway, actors: []actor{fumbler, sweeper}}},
	{"an answer that could not be opened is released", scene{rare: true, before: sealAway, actors: []actor{releaser, sweeper}}},
	{"a desk, and a rotation", scene{rare: true, before: readToken, actors: []actor{rotator("rotator"), desk}}},
}

// tire makes the server ask for time with each error.
func tire(b *bench) { b.Issuer.Wait = 20 * time.Minute }

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

// torn is a ledger that takes an answer and then nothing any more.
type torn struct {
	*rotationtest.Ledger
	gone bool
}

var errTorn = errors.New("the table is gone")

func (l *torn) SaveMint(ctx context.Context, m rotation.Mint) error {
	if l.gone {
		return errTorn
	}
	l.gone = true
	return l.Ledger.SaveMint(ctx, m)
}

func (l *torn) Write(ctx context.Context, change rotation.Change) (string, error) {
	if l.gone {
		return "", errTorn
	}
	return l.Ledger.Write(ctx, change)
}

// sealAway leaves a saved answer, which a process with other keys cannot open.
func sealAway(b *bench) {
	ctx := context.Background()
	seen := &odd{Issuer: b.Issuer, change: func(body string) string { return body }}
	_, _ = b.rotatorBut(func(cfg *rotation.Config) { cfg.Ledger, cfg.Issuer = &torn{Ledger: b.Ledger}, seen }).Rotate(ctx, acme)
	b.right = seen.right
	time.Sleep(10 * time.Minute)
	_, _ = b.rotatorBut(func(cfg *rotation.Config) { cfg.Sealer = otherKeys{b.Sealer} }).Rotate(ctx, acme)
}

// off is a rotator whose clock is wrong.
func off(name string, by time.Duration) actor {
	return actor{name, func(ctx context.Context, b *bench) {
		_, _ = b.rotatorBut(func(cfg *rotation.Config) { cfg.Now = func() time.Time { return time.Now().Add(by) } }).Rotate(ctx, acme)
	}}
}

var (
	ahead  = off("ahead", 90*time.Second)
	behind = off("behind", -30*time.Second)

	// unset is a process that finds no app credentials, neither for rotating nor
	// for revoking.
	unset = actor{"unset", func(ctx context.Context, b *bench) {
		r := b.rotatorBut(func(cfg *rotation.Config) { cfg.Applications = &rotationtest.Applications{Gate: b.Applications.Gate} })
		_, _ = r.Rotate(ctx, acme)
		_, _ = r.Disconnect(ctx, acme)
	}}

	// fumbler has other keys than the held answer was sealed with, and so can only discard it.
	fumbler = actor{"operator", func(ctx context.Context, b *bench) {
		r := b.rotatorBut(func(cfg *rotation.Config) { cfg.Sealer = otherKeys{b.Sealer} })
		_, _ = r.Release(ctx, acme, b.right)
		_, _ = r.Discard(ctx, acme)
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
