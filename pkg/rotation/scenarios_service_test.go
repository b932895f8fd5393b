package rotation_test

import (
	"context"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
)

// Service accounts. They do not depend on what a server does with a replaced pair, so one
// server is enough.

var serviceScenarios = []namedScenario{
	{"a service account's rotator and a sweep", scenario{rare: true, service: true, actors: []actor{rotator("rotator"),
		sweeper}}},
	{"a service account's rotator and its recovery", scenario{rare: true, service: true,
		actors: []actor{rotator("rotator")}, recovery: true}},
	{"two rotators of a service account", scenario{rare: true, service: true, actors: []actor{rotator("rotator 1"),
		rotator("rotator 2")}}},
	{"a service account's rotator and an impatient one", scenario{rare: true, service: true,
		actors: []actor{rotator("rotator"), impatient}}},
	{"a service account's rotator and its disconnect", scenario{rare: true, service: true,
		actors: []actor{rotator("rotator"), disconnecter}}},
	{"a service account and another client secret", scenario{rare: true, service: true, actors: []actor{rotator("rotator"),
		secretResetter}}},
	{"a service account and another app", scenario{rare: true, service: true, actors: []actor{rotator("rotator"),
		appReplacer}}},
	{"a service account that is not known at first", scenario{rare: true, service: true,
		before: meet(func(b *harness) rotation.Issuer { return &forgetful{Issuer: b.Issuer} }),
		actors: []actor{rotator("rotator"), sweeper}}},
	{"a service account and a server that says little", scenario{rare: true, service: true,
		before: meet(func(b *harness) rotation.Issuer { return withoutLifetime(b.Issuer) }),
		actors: []actor{rotator("rotator"),
			sweeper}}},
	{"a service account and a server that answers too much", scenario{rare: true, service: true,
		before: meet(func(b *harness) rotation.Issuer { return withHugeAnswers(b.Issuer) }),
		actors: []actor{rotator("rotator")}}},
	{"a service account and a hand edit", scenario{rare: true, service: true, actors: []actor{rotator("rotator"),
		editor}}},
	{"a service account and a restored table", scenario{rare: true, service: true, before: restore,
		actors: []actor{rotator("rotator")}}},
	{"a service account of 15-minute tokens", scenario{rare: true, service: true, lifetime: 15 * time.Minute,
		age: 880 * time.Second, actors: []actor{queueConsumer, sweeper}}},
	{"a service account that is created in another company", scenario{rare: true, service: true,
		actors: []actor{rotator("rotator"), wrongServiceCreator}}},
	{"a service account that a person takes over", scenario{rare: true, service: true, actors: []actor{rotator("rotator"),
		publishedConsent}}},
	{"a person's connection that becomes a service account", scenario{rare: true, before: disconnectFirst,
		actors: []actor{serviceCreator("creator"), sweeper}}},
	{"a first service account and a sweep", scenario{rare: true, pending: true, actors: []actor{serviceCreator("creator"),
		sweeper}}},
	{"two runs that create a service account", scenario{rare: true, pending: true,
		actors: []actor{serviceCreator("creator 1"),
			serviceCreator("creator 2")}}},
	{"a service account is created while a person consents", scenario{rare: true, pending: true,
		actors: []actor{serviceCreator("creator"), consenter}}},
}

// serviceCreator makes acme a service account.
func serviceCreator(name string) actor {
	return actor{name, func(ctx context.Context, b *harness) { _, _ = b.rotator().ServiceAccount(ctx, acme, "42") }}
}

// wrongServiceCreator creates acme in another company, and then in another installation.
var wrongServiceCreator = actor{"wrong creator", func(ctx context.Context, b *harness) {
	_, _ = b.rotator().ServiceAccount(ctx, acme, "43")
	_, _ = b.rotatorBut(func(cfg *rotation.Config) { cfg.Settings.Stack = "neighbor" }).ServiceAccount(ctx, acme, "42")
}}

// forgetful does not know the app's service account the first time.
type forgetful struct {
	*rotationtest.Issuer
	reminded bool
}

func (f *forgetful) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	if f.reminded {
		return f.Issuer.Redeem(ctx, app, grant)
	}
	f.reminded = true
	return rotation.Answer{Class: rotation.Refused, Detail: "HTTP 400 invalid_grant"}
}
