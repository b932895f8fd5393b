package rotation_test

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
)

// mistake is something that only people can fix, and a text says how.
type mistake struct {
	name    string
	server  rotationtest.Personality
	pending bool        // acme is not connected before
	happens func(*site) // an hour after it was connected
	lost    bool        // what is discarded was the only pair
}

var mistakes = []mistake{
	{name: "the client secret is wrong", happens: func(s *site) { forgeSecret(s.harness) }},
	{name: "another app is set", happens: func(s *site) {
		forgeApp(s.harness)
		another, err := s.Applications.Application(context.Background(), acme.Environment)
		if err == nil {
			s.Issuer.Register(another)
		}
	}},
	{name: "the app is deleted", happens: func(s *site) {
		s.Applications.Delete(acme.Environment)
	}},
	{name: "the consent is withdrawn", happens: func(s *site) { withdrawer.act(context.Background(), s.harness) }},
	{name: "many consents are withdrawn", happens: func(s *site) {
		s.lose(append(s.others(acme.Environment, 4), acme))
	}},
	{name: "the secret is scheduled for deletion", happens: func(s *site) { s.SecretStore.Delete(acme) }},
	{name: "an answer contradicts itself", server: overlap, happens: func(s *site) {
		two := withSeveralTokens(s.Issuer)
		_, _ = s.rotatorWith(two).Rotate(context.Background(), acme)
		s.right = two.right
	}},
	{name: "a saved answer cannot be opened", lost: true, happens: func(s *site) {
		_, _ = s.rotatorBut(func(cfg *rotation.Config) {
			cfg.Ledger = &damaging{Ledger: s.Ledger,
				torn: true}
		}).Rotate(context.Background(), acme)
	}},
	{name: "the answer to a consent contradicts itself", pending: true, happens: func(s *site) {
		s.issuer = withSeveralTokens(s.Issuer)
		consenter.act(context.Background(), s.harness)
		s.issuer = nil
	}},
	{name: "somebody else consents", happens: func(s *site) {
		s.allow(context.Background(), sam, rotation.Identity{Company: "42"})
	}},
	{name: "the user consents for another company", happens: func(s *site) {
		s.allow(context.Background(), at(pat, "43"), rotation.Identity{Company: "43"})
	}},
	{name: "the server has no service account", pending: true, happens: func(s *site) {
		s.issuer = &austere{s.Issuer}
		_, _ = s.rotator().ServiceAccount(context.Background(), acme, "42")
	}},
}

// damaging is a ledger that flips a bit of each answer that it keeps and, if torn, fails
// after that.
type damaging struct {
	*rotationtest.Ledger
	torn, gone bool
}

func (l *damaging) SaveResponse(ctx context.Context, m rotation.TokenResponse) error {
	l.gone = l.torn
	m.Sealed = slices.Clone(m.Sealed)
	m.Sealed[len(m.Sealed)-1] ^= 1
	return l.Ledger.SaveResponse(ctx, m)
}

func (l *damaging) Write(ctx context.Context, change rotation.Change) (string, error) {
	if l.gone {
		return "", errTorn
	}
	return l.Ledger.Write(ctx, change)
}

// austere gives no app a service account token.
type austere struct{ *rotationtest.Issuer }

func (a *austere) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	if grant.ClientCredentials {
		return rotation.Answer{Class: rotation.GrantFault, Detail: "HTTP 401 unauthorized_client"}
	}
	return a.Issuer.Redeem(ctx, app, grant)
}

// remedies are the commands that texts name, and what they do. Each leads to that status.
var remedies = map[string]struct {
	act    func(ctx context.Context, s *site)
	status rotation.Status
}{
	"app set": {func(_ context.Context, s *site) { s.Applications.Set(app) }, rotation.Active},
	"connection invite": {func(ctx context.Context, s *site) {
		for _, rec := range must1(s.Ledger.List(ctx)) {
			s.consentTo(ctx, rec.Connection)
		}
	}, rotation.Active},
	"connection invite --repin": {func(ctx context.Context, s *site) {
		s.allow(ctx, at(sam, "43"), rotation.Identity{Company: "43", Repin: true})
	}, rotation.Active},
	"connection release": {func(ctx context.Context, s *site) { _, _ = s.rotator().Release(ctx, acme, s.right) },
		rotation.Active},
	"connection discard": {func(ctx context.Context, s *site) { _, _ = s.rotator().Discard(ctx, acme) }, rotation.Active},
	"connection rotate":  {func(ctx context.Context, s *site) { _, _ = s.rotator().Rotate(ctx, acme) }, rotation.Active},
	"connection undo":    {func(_ context.Context, s *site) { s.SecretStore.Restore(acme) }, rotation.Active},
	"connection disconnect": {func(ctx context.Context, s *site) {
		_, _ = s.rotator().Disconnect(ctx, acme)
	}, rotation.Disconnected},
	"connection list": {func(context.Context, *site) {}, ""}, // shows only
}

var namedCommand = regexp.MustCompile("`tokenturn ((?:[a-z-]+ )?[a-z-]+)[^`]*`|invite with (--repin)")

// commandsIn lists the commands in a text.
func commandsIn(text string) (commands []string) {
	for _, m := range namedCommand.FindAllStringSubmatch(text, -1) {
		command := m[1]
		if m[2] != "" {
			command = "connection invite " + m[2]
		}
		commands = append(commands, command)
	}
	return commands
}

// I20: every remedy that a notice or an answer names works when it is carried out:
// within one sweep everything works.
func TestEveryRemedyWorks(t *testing.T) {
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			var texts string
			synctest.Test(t, func(t *testing.T) {
				s := m.happened(t)
				texts = s.allTexts(t)
				time.Sleep(24 * time.Hour)
			})
			commands := slices.Compact(slices.Sorted(slices.Values(commandsIn(texts))))
			if len(commands) == 0 {
				t.Errorf("the texts name no remedy: %q", texts)
			}
			for _, command := range commands {
				remedy, known := remedies[command]
				if !known {
					t.Errorf("the texts name %q, which has no test; known are %v", command, slices.Sorted(maps.Keys(remedies)))
					continue
				}
				t.Run(command, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s := m.happened(t)
						s.allTexts(t)
						s.epoch = s.record(t).Epoch
						remedy.act(t.Context(), s)
						must(t, s.run(s.sweep.Add(10*time.Minute)))
						if m.lost && command == "connection discard" {
							remedy.status = rotation.NeedsConsent
						}
						if rec := s.record(t); remedy.status != "" && (rec.Status != remedy.status || rec.Quarantined) {
							t.Errorf("it is %s, quarantined %t, and not %s; people were notified of\n%s", rec.Status, rec.Quarantined,
								remedy.status,
								texts)
						}
						if remedy.status != "" {
							if err := rotationtest.CheckRepaired(s.Harness); err != nil {
								t.Errorf("%v\npeople were notified of\n%s", err, texts)
							}
						}
						time.Sleep(24 * time.Hour)
					})
				})
			}
		})
	}
}

// happened sets up an installation after the mistake.
func (m mistake) happened(t *testing.T) *site {
	t.Helper()
	s := newSite(m.server, 20*time.Minute)
	must(t, s.registered(acme))
	if !m.pending {
		must(t, s.connected())
	}
	must(t, s.run(s.sweep.Add(55*time.Minute)))
	s.epoch = s.record(t).Epoch
	m.happens(s)
	must(t, s.run(s.sweep.Add(10*time.Minute)))
	return s
}

// allTexts is every text for people: notices, and the answer to a forced rotation.
func (s *site) allTexts(t *testing.T) string {
	t.Helper()
	var texts []string
	report, err := s.rotator().Rotate(t.Context(), acme)
	must(t, err)
	for _, r := range report.Connections {
		texts = append(texts, r.Detail)
	}
	for _, n := range s.Notifier.Notices() {
		texts = append(texts, n.Summary)
	}
	return strings.Join(texts, "\n")
}

func TestCommandsInTexts(t *testing.T) {
	text := "The server refuses: run `tokenturn app set sandbox`, or `tokenturn connection release a/b`. " +
		"Invite with `tokenturn doctor`; invite with --repin to move it."
	if got, want := fmt.Sprint(commandsIn(text)),
		"[app set connection release doctor connection invite --repin]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func must1[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// If the bytes of the current response are damaged in the ledger, it is opened from the secret,
// and no action is needed.
func TestADamagedCurrentResponseIsOpenedFromTheSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(rotationtest.Personality{}, 20*time.Minute)
		must(t, s.registered(acme))
		must(t, s.connected())
		must(t, s.run(s.sweep.Add(55*time.Minute)))
		damaged := s.rotatorBut(func(cfg *rotation.Config) { cfg.Ledger = &damaging{Ledger: s.Ledger} })
		must1(damaged.Rotate(t.Context(), acme))
		before := s.record(t).Generation
		must(t, s.run(s.sweep.Add(2*time.Hour)))
		if rec := s.record(t); rec.Generation <= before {
			t.Errorf("it is %s at generation %d, and was at %d", rec.Status, rec.Generation, before)
		}
		if notices := s.Notifier.Notices(); len(notices) > 0 {
			t.Errorf("notices are %+v", notices)
		}
		must(t, rotationtest.CheckAtRest(s.Harness))
		time.Sleep(24 * time.Hour)
	})
}
