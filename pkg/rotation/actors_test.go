package rotation_test

import (
	"context"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// The processes and people of the scenarios.

// by makes an action of a person a step that the explorer can put anywhere between the
// steps of other actors.
func (b *harness) by(ctx context.Context, what string, act func()) {
	_, _ = rotationtest.Through(ctx, b.SecretStore.Gate, "hand."+what, acme, func(bool) (struct{}, error) {
		b.Journal.Add(ctx, acme, rotationtest.Acted{What: what})
		act()
		return struct{}{}, nil
	})
}

func rotator(name string) actor {
	return actor{name, func(ctx context.Context, b *harness) { _, _ = b.rotator().Rotate(ctx, acme) }}
}

var (
	sweeper = function("sweeper")

	// publishedConsent is a callback with a consent that is published at once.
	publishedConsent = actor{"callback", func(ctx context.Context, b *harness) {
		consenter.act(ctx, b)
		_, _ = b.rotator().Publish(ctx, acme)
	}}

	// impatient asks for a rotation as soon as the lease is over.
	impatient = actor{"impatient", func(ctx context.Context, b *harness) {
		time.Sleep(b.settings.Lease + 10*time.Second)
		_, _ = b.rotator().Rotate(ctx, acme)
	}}

	// releaser names the right refresh token of a quarantined answer.
	releaser = actor{"operator", func(ctx context.Context, b *harness) {
		_, _ = b.rotator().Release(ctx, acme, token.NewSecret("from nowhere"))
		_, _ = b.rotator().Release(ctx, acme, b.right)
	}}

	// discarder gives up the quarantined answer.
	discarder = actor{"operator", func(ctx context.Context, b *harness) { _, _ = b.rotator().Discard(ctx, acme) }}

	// queueConsumer delivers the follow-ups that are due.
	queueConsumer = actor{"queue consumer", func(ctx context.Context, b *harness) {
		for _, request := range b.FollowUps.Take() {
			_, _ = b.rotator().Do(rotationtest.Scheduled(ctx), request)
		}
	}}

	// reader is a program that wants a token with an hour to live.
	reader = actor{"reader", func(ctx context.Context, b *harness) {
		_, _ = b.rotator().Do(ctx, rotation.Request{Op: "ensure", Connection: acme.String(), MinTTLSeconds: 3600})
	}}

	// shortRun is a run that will have to end soon.
	shortRun = actor{"short run", func(ctx context.Context, b *harness) {
		ctx, cancel := rotationtest.Within(rotationtest.Scheduled(ctx), b.settings.RedeemTimeout+16*time.Second)
		defer cancel()
		_, _ = b.rotator().Sweep(ctx)
	}}

	// otherUser follows an invitation that was meant for pat.
	otherUser = actor{"other user", func(ctx context.Context, b *harness) {
		b.allow(ctx, sam,
			rotation.Identity{Company: "42"})
	}}

	// secretResetter replaces the client secret, first at the server and then here.
	secretResetter = actor{"operator", func(ctx context.Context, b *harness) {
		changed := app
		changed.ClientSecret = token.NewSecret("client+/changed==")
		b.by(ctx, "reset the client secret", func() { b.Issuer.Register(changed) })
		b.by(ctx, "set the client secret", func() { b.Applications.Set(changed) })
	}}

	// otherUsers follow invitations that were meant for others, and pat one to a
	// company that is not hers.
	otherUsers = actor{"other users", func(ctx context.Context, b *harness) {
		other := pat
		other.ClientID = "another"
		for _, who := range []struct{ is, invited rotation.Identity }{
			{sam, rotation.Identity{ResourceOwner: pat.ResourceOwner}},
			{sam, rotation.Identity{Login: pat.Login}},
			{other, rotation.Identity{}},
			{pat, rotation.Identity{Company: "43"}},
			{at(pat, "43"), rotation.Identity{Company: "43"}},
		} {
			b.allow(ctx, who.is, who.invited)
		}
	}}

	// newOwner is another user, who was invited with Repin.
	newOwner = actor{"new owner", func(ctx context.Context, b *harness) {
		b.allow(ctx, at(sam, "43"), rotation.Identity{Company: "43", Repin: true})
	}}

	// converter makes a service account of a person's connection.
	converter = actor{"converter", func(ctx context.Context, b *harness) {
		if _, err := b.consents().ServiceAccount(ctx, acme, "42"); err == nil {
			_, _ = b.rotator().Publish(ctx, acme)
		}
	}}

	// appReplacer sets the credentials of another app by mistake, and corrects it.
	appReplacer = actor{"operator", func(ctx context.Context, b *harness) {
		other := app
		other.ClientID = "another"
		b.by(ctx, "set another app", func() { b.Applications.Set(other) })
		time.Sleep(5 * time.Minute)
		b.by(ctx, "set the app", func() { b.Applications.Set(app) })
	}}

	// misconfigured is a process with the keys of another installation, and then
	// with its stack id.
	misconfigured = actor{"misconfigured", func(ctx context.Context, b *harness) {
		b.by(ctx, "configure a process", func() {})
		_, _ = b.rotatorBut(func(cfg *rotation.Config) { cfg.Sealer = otherKeys{b.Sealer} }).Rotate(ctx, acme)
		_, _ = b.rotatorBut(func(cfg *rotation.Config) { cfg.Settings.Stack = "neighbor" }).Rotate(ctx, acme)
	}}

	// otherStackWriter is another installation with the same prefix, which writes into
	// the secret; a person corrects that.
	otherStackWriter = actor{"other stack", func(ctx context.Context, b *harness) {
		was := b.SecretStore.Label(acme, "AWSCURRENT")
		b.by(ctx, "write into the secret", func() {
			if doc, err := b.read(context.Background()); err == nil {
				doc.Stack, doc.Generation = "neighbor", doc.Generation+1
				if value, err := doc.Encode(); err == nil {
					_ = b.SecretStore.Edit(ctx, acme, value)
				}
			}
		})
		time.Sleep(5 * time.Minute)
		b.by(ctx, "roll back", func() { _ = b.SecretStore.RollBack(ctx, acme, was) })
	}}

	// badRequests sends requests that are wrong or far in the future.
	badRequests = actor{"caller", func(ctx context.Context, b *harness) {
		soon, later := time.Now().Add(time.Hour), time.Now().Add(48*time.Hour)
		for _, request := range []rotation.Request{{Op: "delete", Connection: acme.String()},
			{Op: "rotate", Connection: "acme"},
			{Op: "rotate", Connection: "sandbox/nobody"}, {Op: "ensure", Connection: acme.String(), MinTTLSeconds: 60,
				NotBefore: later},
			{Op: "ensure", Connection: acme.String(), MinTTLSeconds: 60, Epoch: 1, NotBefore: soon},
			{Op: "ensure", Connection: acme.String(), MinTTLSeconds: 60, NotBefore: soon},
			{Op: "publish", Connection: acme.String()}} {
			_, _ = b.rotator().Do(ctx, request)
		}
	}}

	// rotateEverything is an operator who does not wait for the schedule.
	rotateEverything = actor{"operator", func(ctx context.Context, b *harness) {
		b.rotator().RotateAll(ctx, []token.Connection{acme, {Environment: "sandbox", Name: "nobody"}},
			func(rotation.ConnectionReport) {})
	}}

	// lateSweeper sweeps once lease and quiet period are over.
	lateSweeper = actor{"later sweep", func(ctx context.Context, b *harness) {
		time.Sleep(b.settings.Lease + b.settings.Quiet + 30*time.Second)
		_, _ = b.rotator().Sweep(rotationtest.Scheduled(ctx))
	}}

	publisher = actor{"publisher", func(ctx context.Context, b *harness) { _, _ = b.rotator().Publish(ctx, acme) }}

	// consenter is a callback: the person has clicked Allow.
	consenter = callback("consenter")

	disconnecter = actor{"disconnecter", func(ctx context.Context, b *harness) {
		_, _ = b.rotator().Disconnect(ctx,
			acme)
	}}

	// importer pastes a refresh token that was obtained elsewhere.
	importer = actor{"importer", func(ctx context.Context, b *harness) {
		free := context.Background()
		code := b.Issuer.Authorize(pat, redirectURI, "")
		answer := b.Issuer.Redeem(free, app, rotation.Grant{Code: code, RedirectURI: redirectURI})
		_ = b.consents().Import(ctx, acme, b.Issuer.Parse(answer.Body).Pair.RefreshToken, "42")
	}}

	// lateImporter pastes a token that another program has used since.
	lateImporter = actor{"importer", func(ctx context.Context, b *harness) {
		free := context.Background()
		code := b.Issuer.Authorize(pat, redirectURI, "")
		answer := b.Issuer.Redeem(free, app, rotation.Grant{Code: code, RedirectURI: redirectURI})
		spent := b.Issuer.Parse(answer.Body).Pair.RefreshToken
		b.Issuer.RedeemElsewhere(free, app, spent)
		_ = b.consents().Import(ctx, acme, spent, "42")
	}}

	// withdrawer is the user, who withdraws the consent at the server.
	withdrawer = actor{"user", func(ctx context.Context, b *harness) {
		b.by(ctx, "withdraw", func() {
			if doc, err := b.read(context.Background()); err == nil {
				b.Issuer.Withdraw(ctx, doc.AccessToken)
			}
		})
	}}

	// editor writes a value that is no document into the secret.
	editor = actor{"operator", func(ctx context.Context, b *harness) {
		b.by(ctx, "edit", func() { _ = b.SecretStore.Edit(ctx, acme, token.NewSecret(`{"hello":"operator"}`)) })
	}}

	// rollbacker moves AWSCURRENT to the version before.
	rollbacker = actor{"operator", func(ctx context.Context, b *harness) {
		b.by(ctx, "roll back", func() { _ = b.SecretStore.RollBack(ctx, acme, b.SecretStore.Label(acme, "AWSPREVIOUS")) })
	}}

	// deleter schedules the secret for deletion and restores it.
	deleter = actor{"operator", func(ctx context.Context, b *harness) {
		b.by(ctx, "delete", func() { b.SecretStore.Delete(acme) })
		time.Sleep(5 * time.Minute)
		b.by(ctx, "restore", func() { b.SecretStore.Restore(acme) })
	}}

	// purger deletes the secret immediately and permanently.
	purger = actor{"operator", func(ctx context.Context, b *harness) {
		b.by(ctx, "purge", func() { b.SecretStore.Purge(acme) })
	}}
)

func callback(name string) actor {
	return actor{name, func(ctx context.Context, b *harness) { b.allow(ctx, pat, rotation.Identity{Company: "42"}) }}
}

// allow is a callback: somebody has followed an invitation and clicked Allow.
func (b *harness) allow(ctx context.Context, who, invited rotation.Identity) {
	exchange, err := b.consents().Prepare(ctx, acme, b.epoch)
	if err != nil {
		return
	}
	code := b.Issuer.Authorize(who, redirectURI, "")
	_, _ = exchange.Redeem(ctx, rotation.Consent{Code: code, RedirectURI: redirectURI, Expect: invited})
}

// consentTo lets pat connect c again.
func (b *harness) consentTo(ctx context.Context, c token.Connection) {
	consents := b.consents()
	standing, err := consents.Standing(ctx, c)
	if err != nil {
		return
	}
	exchange, err := consents.Prepare(ctx, c, standing.Epoch)
	if err != nil {
		return
	}
	who := pat
	if set, err := b.Applications.Application(ctx, c.Environment); err == nil {
		who.ClientID = set.ClientID // as the link says
	}
	_, _ = exchange.Redeem(ctx, rotation.Consent{Code: b.Issuer.Authorize(who, redirectURI, ""), RedirectURI: redirectURI})
}

// sam is not pat.
var sam = rotation.Identity{ClientID: app.ClientID, ResourceOwner: "8", Login: "sam@example.com", Company: "42"}

// at is somebody who acts for a company.
func at(who rotation.Identity, company string) rotation.Identity {
	who.Company = company
	return who
}
