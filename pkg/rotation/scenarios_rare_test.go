package rotation_test

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Around the rotation of one connection: one machine, damaged rows, and the commands of an
// operator.

var rareScenarios = []namedScenario{
	{"a server that asks for time", scenario{rare: true, before: askForTime, actors: []actor{rotator("rotator"),
		sweeper}}},
	{"one machine", scenario{rare: true, before: unlimited, actors: []actor{standalone, sweeper}}},
	{"a consent that nobody's name is known of is lost", scenario{rare: true, before: loseNameless,
		actors: []actor{inviter, sweeper}}},
	{"a hand edit, and a caller that goes away", scenario{rare: true, before: edit, actors: []actor{cancelledSweep,
		sweeper}}},
	{"a rotator and the document of another connection", scenario{rare: true, actors: []actor{rotator("rotator"),
		documentMixer}}},
	{"a server that is down for maintenance", scenario{rare: true, menu: uncancelled, before: shut,
		actors: []actor{rotator("rotator"), sweeper}}},
	{"a server that ignores revocations", scenario{rare: true,
		before: meet(func(b *harness) rotation.Issuer { return deaf{b.Issuer, time.Now().Add(20 * time.Minute)} }),
		actors: []actor{disconnecter, sweeper}}},
	{"a server that gives another user the current pair", scenario{rare: true, before: echo, actors: []actor{wrongInvitee,
		sweeper}}},
	{"a search for what was on its way at a disconnect", scenario{rare: true, before: depart, actors: []actor{sweeper}}},
	{"a row that changes while a request is found faulty",
		scenario{rare: true, before: meet(func(b *harness) rotation.Issuer { return &faultFinding{Issuer: b.Issuer} }),
			actors: []actor{contendedOnce}}},
	{"a row that never stops changing", scenario{long: true, actors: []actor{contended}}},
	{"a row that never stops changing, of a quarantined answer", scenario{long: true, before: quarantineAnswer,
		actors: []actor{contended}}},
	{"a row that never stops changing, of a lost consent", scenario{long: true, before: keepNoticePendingAcme,
		actors: []actor{contended}}},
	{"damaged answers of an earlier life", scenario{rare: true, before: damage, actors: []actor{rotator("rotator")}}},
	{"a code that is refused", scenario{rare: true, actors: []actor{expiredCode, sweeper}}},
	{"two rotators with clocks that differ", scenario{rare: true, actors: []actor{ahead, behind}}},
	{"a rotator with a clock that is ahead, and a disconnect", scenario{rare: true, actors: []actor{ahead, disconnecter}}},
	{"a rotator, and one that finds no app credentials", scenario{rare: true, actors: []actor{rotator("rotator"), unset}}},
	{"an answer that could not be opened is discarded", scenario{rare: true, before: sealAway, actors: []actor{discarder,
		sweeper}}},
	{"an answer that cannot be opened is discarded", scenario{rare: true, before: sealAway, actors: []actor{wrongKeys,
		sweeper}}},
	{"an answer that could not be opened is released", scenario{rare: true, before: sealAway, actors: []actor{releaser,
		sweeper}}},
	{"a rotator and a consent with the second client secret", scenario{rare: true, before: resetSecret,
		actors: []actor{rotator("rotator"), consenter}}},
	{"a disconnect with the second client secret", scenario{rare: true, before: resetSecret,
		actors: []actor{disconnecter, sweeper}}},
	{"a rotator, and a service account in place of a consent", scenario{rare: true, actors: []actor{rotator("rotator"),
		converter}}},
	{"a service account in place of a consent, and a new consent", scenario{rare: true, actors: []actor{converter,
		consenter}}},
	{"a service account in place of a consent, and a disconnect", scenario{rare: true, actors: []actor{converter,
		disconnecter}}},
	{"operator commands, and a connection that was imported", scenario{rare: true, pending: true, before: importOnce,
		actors: []actor{operatorCommands}}},
	{"operator commands, and a rotation", scenario{rare: true, before: readToken, actors: []actor{rotator("rotator"),
		operatorCommands}}},
}

// askForTime makes the server ask for a wait with each error.
func askForTime(b *harness) { b.Issuer.Wait = 20 * time.Minute }

// readToken makes the current refresh token known to an operator.
func readToken(b *harness) {
	seen := &alteredIssuer{Issuer: b.Issuer, change: func(body string) string { return body }}
	_, _ = b.rotatorWith(seen).Rotate(context.Background(), acme)
	b.right = seen.right
	time.Sleep(time.Hour)
}

// importOnce imports a refresh token that the operator still knows.
func importOnce(b *harness) {
	ctx := context.Background()
	answer := b.Issuer.Redeem(ctx, app, rotation.Grant{Code: b.Issuer.Authorize(pat, redirectURI, ""),
		RedirectURI: redirectURI})
	b.right = b.Issuer.Parse(answer.Body).Pair.RefreshToken
	_ = b.consents().Import(ctx, acme, b.right, "42")
	b.deliver(ctx)
	time.Sleep(time.Hour)
}

// unlimited is a secret store that takes any number of versions.
func unlimited(b *harness) { b.settings.PutsPerDay = 0 }

// damage leaves answers with damaged bytes, of the epoch before the first.
func damage(b *harness) {
	_, responses, err := b.Ledger.Load(context.Background(), acme)
	if err != nil {
		panic(err)
	}
	flipped := slices.Clone(responses[0].Sealed)
	flipped[len(flipped)-1] ^= 1
	for i, sealed := range [][]byte{{}, {1, 255, 255, 0}, flipped} {
		m := rotation.TokenResponse{Connection: acme, Key: rotation.ResponseKey{Attempt: string(rune('a' + i))},
			Source:  rotation.FromCode,
			SavedAt: time.Now(), State: rotation.Saved, Sealed: sealed, Stack: b.settings.Stack}
		if err := b.Ledger.SaveResponse(context.Background(), m); err != nil {
			panic(err)
		}
	}
}

// loseNameless withdraws the consent of a user without a known login.
func loseNameless(b *harness) {
	b.rewrite(func(r *rotation.Record) rotation.Change {
		r.Pin.Login = ""
		return rotation.Change{}
	})
	withdrawer.act(context.Background(), b)
}

// keepNoticePendingAcme lets a follow-up find that the consent was taken back.
func keepNoticePendingAcme(b *harness) {
	withdrawer.act(context.Background(), b)
	reader.act(context.Background(), b)
	time.Sleep(5 * time.Minute)
}

// edit is a hand edit that no run has found yet.
func edit(b *harness) { editor.act(context.Background(), b) }

// depart disconnects, and waits until no answer can be on its way any more.
func depart(b *harness) {
	_, _ = b.rotator().Disconnect(context.Background(), acme)
	time.Sleep(time.Hour)
}

// uncancelled is menu without canceled callers: if the server itself loses answers, the
// test cannot know which of them ended with their callers.
func uncancelled(at rotationtest.Passage) []rotationtest.Fault {
	return slices.DeleteFunc(menu(at), func(f rotationtest.Fault) bool { return f.Kind == rotationtest.Cancel })
}

// shut takes the server down for maintenance; it says for how long.
func shut(b *harness) {
	b.Issuer.Wait = 10 * time.Minute
	b.Issuer.ShutUntil = time.Now().Add(b.Issuer.Wait)
}

// echoing answers a code with what it once answered to a refresh.
type echoing struct {
	*rotationtest.Issuer
	answer rotation.Answer
}

func (e *echoing) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	if !grant.Code.IsZero() {
		return e.answer
	}
	answer := e.Issuer.Redeem(ctx, app, grant)
	if e.answer.Class == "" {
		e.answer = answer
	}
	return answer
}

// echo makes the current pair the answer to every code. The server does not also
// end families on revocation: the other user's pair could not be distinguished from an ancestor
// of the current one.
func echo(b *harness) {
	b.Issuer.Personality.RevokesFamily = false
	b.issuer = &echoing{Issuer: b.Issuer}
	rotateOnce(b)
}

// changingLedger is a ledger with another writer that changes the row before each write,
// after so many undisturbed writes, and only so many times.
type changingLedger struct {
	*rotationtest.Ledger
	spared, times int
}

func (l *changingLedger) Write(ctx context.Context, change rotation.Change) (string, error) {
	if l.spared--; l.spared < 0 && l.times > 0 {
		l.times--
		if rec, _, err := l.Ledger.Load(context.Background(), change.Record.Connection); err == nil {
			_, _ = l.Ledger.Write(context.Background(), rotation.Change{Record: rec})
		}
	}
	return l.Ledger.Write(ctx, change)
}

// failingLedger is a ledger that takes one answer and then fails.
type failingLedger struct {
	*rotationtest.Ledger
	gone bool
}

var errTorn = errors.New("the table is gone")

func (l *failingLedger) SaveResponse(ctx context.Context, m rotation.TokenResponse) error {
	if l.gone {
		return errTorn
	}
	l.gone = true
	return l.Ledger.SaveResponse(ctx, m)
}

func (l *failingLedger) Write(ctx context.Context, change rotation.Change) (string, error) {
	if l.gone {
		return "", errTorn
	}
	return l.Ledger.Write(ctx, change)
}

// sealAway leaves a saved answer, which a process with other keys cannot open.
func sealAway(b *harness) {
	ctx := context.Background()
	seen := &alteredIssuer{Issuer: b.Issuer, change: func(body string) string { return body }}
	_, _ = b.rotatorBut(func(cfg *rotation.Config) {
		cfg.Ledger, cfg.Issuer = &failingLedger{Ledger: b.Ledger},
			seen
	}).Rotate(ctx,
		acme)
	b.right = seen.right
	time.Sleep(10 * time.Minute)
	_, _ = b.rotatorBut(func(cfg *rotation.Config) { cfg.Sealer = otherKeys{b.Sealer} }).Rotate(ctx, acme)
}

// off is a rotator with a wrong clock.
func off(name string, by time.Duration) actor {
	return actor{name, func(ctx context.Context, b *harness) {
		_, _ = b.rotatorBut(func(cfg *rotation.Config) { cfg.Now = func() time.Time { return time.Now().Add(by) } }).Rotate(
			ctx, acme)
	}}
}

var (
	ahead  = off("ahead", 90*time.Second)
	behind = off("behind", -30*time.Second)

	// unset is a process that finds no app credentials, neither for rotating nor
	// for revoking.
	unset = actor{"unset", func(ctx context.Context, b *harness) {
		r := b.rotatorBut(func(cfg *rotation.Config) {
			cfg.Applications = &rotationtest.Applications{
				Gate: b.Applications.Gate}
		})
		_, _ = r.Rotate(ctx, acme)
		_, _ = r.Disconnect(ctx, acme)
	}}

	// documentMixer puts another connection's document into the secret.
	documentMixer = actor{"operator", func(ctx context.Context, b *harness) {
		b.by(ctx, "copy the wrong document", func() {
			if doc, err := b.read(context.Background()); err == nil {
				doc.Connection.Name = "other"
				if value, err := doc.Encode(); err == nil {
					_ = b.SecretStore.Edit(ctx, acme, value)
				}
			}
		})
	}}

	// wrongInvitee is pat, who follows an invitation that was meant for sam.
	wrongInvitee = actor{"wrong invitee", func(ctx context.Context, b *harness) {
		b.allow(ctx, pat,
			rotation.Identity{Login: sam.Login})
	}}

	// contendedOnce rotates, and finds the row changed when it writes the result.
	contendedOnce = actor{"contended once", func(ctx context.Context, b *harness) {
		_, _ = b.rotatorBut(func(cfg *rotation.Config) {
			cfg.Ledger, cfg.Issuer = &changingLedger{b.Ledger, 1, 1}, b.issuer
		}).Rotate(ctx, acme)
	}}

	// contended does everything while another writer changes the row before each write.
	contended = actor{"contended", func(ctx context.Context, b *harness) {
		ledger := &changingLedger{b.Ledger, 0, 1000}
		r := b.rotatorBut(func(cfg *rotation.Config) { cfg.Ledger = ledger })
		_, _ = r.Sweep(ctx)
		_, _ = r.Discard(ctx, acme)
		ledger.spared = 1 // which begins the attempt
		_, _ = b.rotatorBut(func(cfg *rotation.Config) {
			cfg.Ledger, cfg.Issuer = ledger,
				&faultFinding{Issuer: b.Issuer}
		}).Rotate(ctx, acme)
		consents := b.consentsBut(func(cfg *rotation.ConsentsConfig) { cfg.Ledger = ledger })
		if exchange, err := consents.Prepare(ctx, acme, b.epoch); err == nil {
			_, _ = exchange.Redeem(ctx, rotation.Consent{Code: b.Issuer.Authorize(pat, redirectURI, ""),
				RedirectURI: redirectURI})
		}
		nobody := token.Connection{Environment: "sandbox", Name: "nobody"}
		_, _ = rotation.Register(ctx, b.Ledger, b.SecretStore, b.settings.Stack, nobody)
		_, _ = consents.Prepare(ctx, nobody, 0)
		_, _ = r.ServiceAccount(ctx, nobody, "42")
	}}

	// wrongKeys has other keys than those that sealed the quarantined answer, so it can only discard the answer.
	wrongKeys = actor{"operator", func(ctx context.Context, b *harness) {
		r := b.rotatorBut(func(cfg *rotation.Config) { cfg.Sealer = otherKeys{b.Sealer} })
		_, _ = r.Release(ctx, acme, b.right)
		_, _ = r.Discard(ctx, acme)
	}}

	// standalone is a process with nothing but the stores and the server.
	standalone = actor{"standalone", func(ctx context.Context, b *harness) {
		r := b.rotatorBut(func(cfg *rotation.Config) {
			cfg.FollowUps, cfg.RateLimiter, cfg.NoticeClaims, cfg.Log = nil, nil, nil, nil
		})
		_, _ = r.Rotate(ctx, acme)
		_, _ = r.Sweep(ctx)
		_, _ = r.Do(ctx, rotation.Request{Op: "ensure", Connection: acme.String(), MinTTLSeconds: 5000})
		if exchange, err := b.consentsBut(func(cfg *rotation.ConsentsConfig) { cfg.FollowUps = nil }).Prepare(ctx, acme,
			b.epoch); err == nil {
			_, _ = exchange.Redeem(ctx, rotation.Consent{Code: b.Issuer.Authorize(pat, redirectURI, ""),
				RedirectURI: redirectURI})
		}
	}}

	// expiredCode comes with an expired code.
	expiredCode = actor{"expired code", func(ctx context.Context, b *harness) {
		exchange, err := b.consents().Prepare(ctx, acme, b.epoch)
		if err != nil {
			return
		}
		code := b.Issuer.Authorize(pat, redirectURI, "")
		time.Sleep(11 * time.Minute)
		_, _ = exchange.Redeem(ctx, rotation.Consent{Code: code, RedirectURI: redirectURI})
	}}

	// operatorCommands asks about connections, and requests what must be refused.
	operatorCommands = actor{"operator", func(ctx context.Context, b *harness) {
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
		known, _ := rotation.CheckImports(asking, b.Ledger, map[token.Connection]token.Secret{acme: b.right,
			nobody: token.NewSecret("unknown")},
			func(int) func() { return func() {} })
		if known[acme] != nil {
			_ = known[acme].Error()
		}
		_, _ = rotation.Register(ctx, b.Ledger, b.SecretStore, b.settings.Stack, acme)
		_, _ = rotation.Register(ctx, b.Ledger, b.SecretStore, b.settings.Stack, nobody)
		otherStack := b.consentsBut(func(cfg *rotation.ConsentsConfig) { cfg.Settings.Stack = "neighbor" })
		_, _ = otherStack.Prepare(ctx, acme, b.epoch)
	}}
)
