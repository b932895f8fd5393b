package rotation_test

import (
	"context"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
)

// Service accounts. What a server does with a pair that it has replaced is all
// the same to them, so one server is enough.

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
		portal}}},
	{"a service account and another app", scenario{rare: true, service: true, actors: []actor{rotator("rotator"),
		replacer}}},
	{"a service account that is not known at first", scenario{rare: true, service: true,
		before: meet(func(b *harness) rotation.Issuer { return &forgetful{Issuer: b.Issuer} }),
		actors: []actor{rotator("rotator"), sweeper}}},
	{"a service account and a server that says little", scenario{rare: true, service: true,
		before: meet(func(b *harness) rotation.Issuer { return taciturn(b.Issuer) }), actors: []actor{rotator("rotator"),
			sweeper}}},
	{"a service account and a server that answers too much", scenario{rare: true, service: true,
		before: meet(func(b *harness) rotation.Issuer { return immense(b.Issuer) }), actors: []actor{rotator("rotator")}}},
	{"a service account and a hand edit", scenario{rare: true, service: true, actors: []actor{rotator("rotator"),
		editor}}},
	{"a service account and a restored table", scenario{rare: true, service: true, before: restore,
		actors: []actor{rotator("rotator")}}},
	{"a service account of 15-minute tokens", scenario{rare: true, service: true, lifetime: 15 * time.Minute,
		age: 880 * time.Second, actors: []actor{courier, sweeper}}},
	{"a service account that is founded in another company", scenario{rare: true, service: true,
		actors: []actor{rotator("rotator"), misfounder}}},
	{"a service account that a person takes over", scenario{rare: true, service: true, actors: []actor{rotator("rotator"),
		renewer}}},
	{"a person's connection that becomes a service account", scenario{rare: true, before: leave,
		actors: []actor{founder("founder"), sweeper}}},
	{"a first service account and a sweep", scenario{rare: true, pending: true, actors: []actor{founder("founder"),
		sweeper}}},
	{"two who found a service account", scenario{rare: true, pending: true, actors: []actor{founder("founder 1"),
		founder("founder 2")}}},
	{"a service account is founded while a person allows", scenario{rare: true, pending: true,
		actors: []actor{founder("founder"), consenter}}},
}

// founder makes acme a service account.
func founder(name string) actor {
	return actor{name, func(ctx context.Context, b *harness) { _, _ = b.rotator().ServiceAccount(ctx, acme, "42") }}
}

// misfounder takes acme for that of another company, and then for another installation's.
var misfounder = actor{"misfounder", func(ctx context.Context, b *harness) {
	_, _ = b.rotator().ServiceAccount(ctx, acme, "43")
	_, _ = b.rotatorBut(func(cfg *rotation.Config) { cfg.Settings.Stack = "neighbour" }).ServiceAccount(ctx, acme, "42")
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
