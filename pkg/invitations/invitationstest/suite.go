// Package invitationstest is the test kit of package consent: the contract of
// invitations.Store as a suite, and a Store in memory.
package invitationstest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// TestStore is the contract of invitations.Store. Each call of open returns an
// empty store. Times must survive to the second.
func TestStore(t *testing.T, open func(t *testing.T) invitations.Store) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *user)
	}{
		{"nothing is there at first", nothingThere},
		{"every field of an invitation survives", everyInvitationField},
		{"invitations are listed, newest first, until they expire", listInvitations},
		{"an invitation is revoked", revokeInvitation},
		{"every field of a state survives", everyStateField},
		{"starts are counted up to the limit", countStarts},
		{"concurrent starts are counted up to the limit", countStartsAtOnce},
		{"an invitation expires to the second", invitationExpires},
		{"a start without an invitation is refused", startWithoutInvitation},
		{"a state is consumed once", consumeOnce},
		{"the same call again is a success", consumeAgain},
		{"the wrong browser or environment leaves the state to the right one", consumeWrong},
		{"a state expires to the second", stateExpires},
		{"of many consumers one wins", oneConsumerWins},
		{"a denial leaves the invitation usable", concludeDenied},
		{"a conclusion needs a state", concludeNothing},
		{"a success uses up the invitation", concludeUsed},
		{"a revocation does not stop a consent under way", revokeUnderWay},
		{"what has expired can still be read", expiredIsThere},
		{"invitations and states are separate", separate},
		{"a cancelled context is an error", cancelled},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, &user{t, open(t)}) })
	}
}

// TestStoreRepeats is the part of the contract that concerns stores behind a
// network; see rotationtest.TestLedgerRepeats.
func TestStoreRepeats(t *testing.T, open func(t *testing.T, transport http.RoundTripper) invitations.Store) {
	for name, repeater := range rotationtest.Repeaters {
		t.Run(name, func(t *testing.T) { repeats(t, &user{t, open(t, repeater(http.DefaultTransport))}) })
	}
}

var now = time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)

// user is a store that ends the test where a call fails that must not.
type user struct {
	t *testing.T
	invitations.Store
}

// invitation is a full one that expires an hour after now.
func invitation(name string) invitations.Invitation {
	return invitations.Invitation{Hash: "invitation-" + name, Connection: token.Connection{Environment: "sandbox",
		Name: "acme"},
		Expect: rotation.Identity{ClientID: "client", ResourceOwner: "12", Login: "a@example.com", Company: "34",
			CompanyName: "Acme", Repin: true},
		Epoch: 6, CreatedAt: now.Add(-time.Hour), ExpiresAt: now.Add(time.Hour)}
}

// state is a start of that invitation at now that expires ten minutes later.
func state(invited, name string) invitations.State {
	return invitations.State{Hash: "state-" + name, Cookie: "cookie-" + name, Environment: "sandbox",
		Connection: token.Connection{Environment: "sandbox", Name: "acme"}, Invitation: "invitation-" + invited,
		RedirectURI: "https://example.com/callback/sandbox", Expect: rotation.Identity{Company: "34"}, Epoch: 7,
		CreatedAt: now, ExpiresAt: now.Add(10 * time.Minute)}
}

func (u *user) invite(i invitations.Invitation) {
	u.t.Helper()
	if err := u.CreateInvitation(u.t.Context(), i); err != nil {
		u.t.Fatalf("creating %s: %v", i.Hash, err)
	}
}

func (u *user) invited(name string) invitations.Invitation {
	u.t.Helper()
	i, err := u.Invitation(u.t.Context(), "invitation-"+name)
	if err != nil {
		u.t.Fatalf("reading invitation-%s: %v", name, err)
	}
	return i
}

func (u *user) start(s invitations.State) {
	u.t.Helper()
	if err := u.Start(u.t.Context(), s); err != nil {
		u.t.Fatalf("starting %s: %v", s.Hash, err)
	}
}

func (u *user) started(name string) invitations.State {
	u.t.Helper()
	s, err := u.State(u.t.Context(), "state-"+name)
	if err != nil {
		u.t.Fatalf("reading state-%s: %v", name, err)
	}
	return s
}

func (u *user) consume(name, nonce string, at time.Time) invitations.State {
	u.t.Helper()
	s, err := u.Consume(u.t.Context(), "state-"+name, "cookie-"+name, "sandbox", nonce, at)
	if err != nil {
		u.t.Fatalf("consuming state-%s: %v", name, err)
	}
	return s
}

func (u *user) conclude(s invitations.State, result string, used bool, at time.Time) {
	u.t.Helper()
	if err := u.Conclude(u.t.Context(), s, result, used, at); err != nil {
		u.t.Fatalf("concluding %s: %v", s.Hash, err)
	}
}

func (u *user) list(at time.Time) (names []string) {
	u.t.Helper()
	invitations, err := u.Invitations(u.t.Context(), at)
	if err != nil {
		u.t.Fatalf("listing invitations: %v", err)
	}
	for _, i := range invitations {
		names = append(names, i.Hash)
	}
	return names
}

func (u *user) refused(what string, err, want error) {
	u.t.Helper()
	if !errors.Is(err, want) {
		u.t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

// sameInvitation and sameState compare everything, times to the second.
func (u *user) sameInvitation(got, want invitations.Invitation) {
	u.t.Helper()
	for _, i := range []*invitations.Invitation{&got, &want} {
		truncate(&i.CreatedAt, &i.ExpiresAt, &i.UsedAt, &i.RevokedAt)
	}
	if got != want {
		u.t.Errorf("the invitation is\n%+v, want\n%+v", got, want)
	}
}

func (u *user) sameState(got, want invitations.State) {
	u.t.Helper()
	for _, s := range []*invitations.State{&got, &want} {
		truncate(&s.CreatedAt, &s.ExpiresAt, &s.ConsumedAt)
	}
	if got != want {
		u.t.Errorf("the state is\n%+v, want\n%+v", got, want)
	}
}

func truncate(times ...*time.Time) {
	for _, at := range times {
		*at = at.UTC().Truncate(time.Second)
	}
}

func nothingThere(t *testing.T, u *user) {
	ctx := t.Context()
	_, err := u.Invitation(ctx, "nothing")
	u.refused("Invitation", err, invitations.ErrNotFound)
	_, err = u.State(ctx, "nothing")
	u.refused("State", err, invitations.ErrNotFound)
	u.refused("RevokeInvitation", u.RevokeInvitation(ctx, "nothing", now), invitations.ErrNotFound)
	_, err = u.Consume(ctx, "nothing", "", "", "nonce", now)
	u.refused("Consume", err, invitations.ErrRefused)
	if names := u.list(now); len(names) != 0 {
		t.Errorf("listed %v", names)
	}
	_, err = u.Invitation(ctx, "nothing")
	u.refused("Invitation after the refusals", err, invitations.ErrNotFound)
}

func everyInvitationField(t *testing.T, u *user) {
	u.invite(invitation("a"))
	u.sameInvitation(u.invited("a"), invitation("a"))
	bare := invitations.Invitation{Hash: "invitation-bare", Connection: invitation("a").Connection,
		CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
	u.invite(bare)
	got := u.invited("bare")
	u.sameInvitation(got, bare)
	if !got.UsedAt.IsZero() || !got.RevokedAt.IsZero() || !got.Usable(now) {
		t.Errorf("a new invitation is not usable: %+v", got)
	}
}

func listInvitations(t *testing.T, u *user) {
	var want []string
	for n := range 60 {
		i := invitation(fmt.Sprintf("%02d", n))
		i.CreatedAt, i.ExpiresAt = now.Add(time.Duration(n)*time.Second), now.Add(time.Duration(n+1)*time.Hour)
		u.invite(i)
		want = slices.Insert(want, 0, i.Hash)
	}
	if err := u.RevokeInvitation(t.Context(), want[0], now); err != nil {
		t.Fatal(err)
	}
	if got := u.list(now); !slices.Equal(got, want) {
		t.Errorf("listed\n%v, want\n%v", got, want)
	}
	if got := u.list(now.Add(50*time.Hour + time.Second)); !slices.Equal(got, want[:10]) {
		t.Errorf("50 hours later, listed\n%v, want\n%v", got, want[:10])
	}
	if got := u.list(now.Add(1000 * time.Hour)); len(got) != 0 {
		t.Errorf("after all have expired, listed %v", got)
	}
}

func revokeInvitation(t *testing.T, u *user) {
	u.invite(invitation("a"))
	u.invite(invitation("b"))
	for _, at := range []time.Time{now, now.Add(time.Second)} {
		if err := u.RevokeInvitation(t.Context(), "invitation-a", at); err != nil {
			t.Fatalf("revoking at %v: %v", at, err)
		}
	}
	if i := u.invited("a"); i.RevokedAt.IsZero() || i.Usable(now) {
		t.Errorf("after its revocation the invitation is %+v", i)
	}
	u.refused("Start", u.Start(t.Context(), state("a", "a")), invitations.ErrSpent)
	u.start(state("b", "b"))
}

func everyStateField(t *testing.T, u *user) {
	u.invite(invitation("a"))
	u.start(state("a", "a"))
	got := u.started("a")
	u.sameState(got, state("a", "a"))
	if !got.ConsumedAt.IsZero() || got.Result != "" {
		t.Errorf("a new state is %+v", got)
	}
}

func countStarts(t *testing.T, u *user) {
	u.invite(invitation("a"))
	for n := range invitations.MaxStarts {
		u.start(state("a", fmt.Sprint(n)))
		if got := u.invited("a").Starts; got != n+1 {
			t.Errorf("after %d starts the invitation counts %d", n+1, got)
		}
	}
	u.refused("one start more", u.Start(t.Context(), state("a", "more")), invitations.ErrSpent)
	if got := u.invited("a").Starts; got != invitations.MaxStarts {
		t.Errorf("a refused start was counted: %d", got)
	}
	_, err := u.State(t.Context(), "state-more")
	u.refused("reading the state of a refused start", err, invitations.ErrNotFound)
	u.consume("0", "nonce", now) // the earlier ones are still good
}

func countStartsAtOnce(t *testing.T, u *user) {
	u.invite(invitation("a"))
	started := 0
	for _, err := range race(16, func(n int) error { return u.Start(t.Context(), state("a", fmt.Sprint(n))) }) {
		if err == nil {
			started++
		} else {
			u.refused("a start too many", err, invitations.ErrSpent)
		}
	}
	stored := 0
	for n := range 16 {
		if _, err := u.State(t.Context(), fmt.Sprint("state-", n)); err == nil {
			stored++
		}
	}
	if counted := u.invited("a").Starts; started != invitations.MaxStarts || stored != started || counted != started {
		t.Errorf("%d starts succeeded, %d states are stored, %d are counted; want %d", started, stored, counted,
			invitations.MaxStarts)
	}
}

func invitationExpires(t *testing.T, u *user) {
	u.invite(invitation("a"))
	end := invitation("a").ExpiresAt
	at := func(name string, when time.Time) invitations.State {
		s := state("a", name)
		s.CreatedAt, s.ExpiresAt = when, when.Add(time.Minute)
		return s
	}
	u.refused("Start at the end", u.Start(t.Context(), at("end", end)), invitations.ErrSpent)
	u.refused("Start later", u.Start(t.Context(), at("later", end.Add(time.Second))), invitations.ErrSpent)
	u.start(at("before", end.Add(-time.Second)))
}

func startWithoutInvitation(t *testing.T, u *user) {
	u.refused("Start", u.Start(t.Context(), state("none", "a")), invitations.ErrNotFound)
	_, err := u.State(t.Context(), "state-a")
	u.refused("State", err, invitations.ErrNotFound)
	_, err = u.Invitation(t.Context(), "invitation-none")
	u.refused("Invitation", err, invitations.ErrNotFound)
}

func consumeOnce(t *testing.T, u *user) {
	u.invite(invitation("a"))
	u.start(state("a", "a"))
	want := state("a", "a")
	want.ConsumedAt = now.Add(time.Minute)
	u.sameState(u.consume("a", "nonce", now.Add(time.Minute)), want)
	u.sameState(u.started("a"), want)
	_, err := u.Consume(t.Context(), "state-a", "cookie-a", "sandbox", "another nonce", now.Add(time.Minute))
	u.refused("a second Consume", err, invitations.ErrRefused)
	u.sameState(u.started("a"), want)
}

func consumeAgain(t *testing.T, u *user) {
	u.invite(invitation("a"))
	u.start(state("a", "a"))
	first := u.consume("a", "nonce", now)
	u.sameState(u.consume("a", "nonce", now), first)
	u.sameState(u.started("a"), first)
}

func consumeWrong(t *testing.T, u *user) {
	u.invite(invitation("a"))
	u.start(state("a", "a"))
	u.start(state("a", "b"))
	for _, wrong := range []struct{ what, hash, cookie, environment string }{
		{"another browser's cookie", "state-a", "cookie-b", "sandbox"},
		{"no cookie", "state-a", "", "sandbox"},
		{"the start of a cookie", "state-a", "cookie-", "sandbox"},
		{"another environment", "state-a", "cookie-a", "production"},
		{"no environment", "state-a", "cookie-a", ""},
		{"another state", "state-c", "cookie-a", "sandbox"},
		{"no state", "", "cookie-a", "sandbox"},
	} {
		if wrong.hash == "" {
			wrong.hash = "none"
		}
		_, err := u.Consume(t.Context(), wrong.hash, wrong.cookie, wrong.environment, "nonce", now)
		u.refused(wrong.what, err, invitations.ErrRefused)
	}
	u.sameState(u.started("a"), state("a", "a"))
	u.consume("a", "nonce", now)
	u.consume("b", "nonce", now)
}

func stateExpires(t *testing.T, u *user) {
	u.invite(invitation("a"))
	u.start(state("a", "a"))
	end := state("a", "a").ExpiresAt
	for _, late := range []time.Time{end, end.Add(time.Second), end.Add(48 * time.Hour)} {
		_, err := u.Consume(t.Context(), "state-a", "cookie-a", "sandbox", "nonce", late)
		u.refused(fmt.Sprintf("Consume %v after the end", late.Sub(end)), err, invitations.ErrRefused)
	}
	u.sameState(u.started("a"), state("a", "a"))
	u.consume("a", "nonce", end.Add(-time.Second))
}

func oneConsumerWins(t *testing.T, u *user) {
	u.invite(invitation("a"))
	for round := range invitations.MaxStarts {
		name := fmt.Sprint(round)
		u.start(state("a", name))
		winners := 0
		for _, err := range race(16, func(n int) error {
			_, err := u.Consume(t.Context(), "state-"+name, "cookie-"+name, "sandbox", fmt.Sprint("nonce ", n), now)
			return err
		}) {
			if err == nil {
				winners++
			} else {
				u.refused("a loser's Consume", err, invitations.ErrRefused)
			}
		}
		if winners != 1 {
			t.Fatalf("%d of 16 consumers won", winners)
		}
	}
}

func concludeDenied(t *testing.T, u *user) {
	u.invite(invitation("a"))
	u.start(state("a", "a"))
	s := u.consume("a", "nonce", now)
	u.conclude(s, "denied", false, now)
	if got := u.started("a"); got.Result != "denied" || got.ConsumedAt.IsZero() {
		t.Errorf("the state is %+v", got)
	}
	if i := u.invited("a"); !i.UsedAt.IsZero() || !i.Usable(now) {
		t.Errorf("a denial used the invitation up: %+v", i)
	}
	_, err := u.Consume(t.Context(), "state-a", "cookie-a", "sandbox", "another nonce", now)
	u.refused("Consume after the conclusion", err, invitations.ErrRefused)
	u.start(state("a", "b"))
}

func concludeNothing(t *testing.T, u *user) {
	u.invite(invitation("a"))
	u.refused("Conclude", u.Conclude(t.Context(), state("a", "a"), "connected", true, now), invitations.ErrNotFound)
	if i := u.invited("a"); !i.UsedAt.IsZero() {
		t.Errorf("the invitation is used up: %+v", i)
	}
}

func concludeUsed(t *testing.T, u *user) {
	u.invite(invitation("a"))
	u.invite(invitation("b"))
	u.start(state("a", "a"))
	s := u.consume("a", "nonce", now)
	for range 2 {
		u.conclude(s, "connected", true, now.Add(time.Second))
	}
	want := s
	want.Result = "connected"
	u.sameState(u.started("a"), want)
	i := u.invited("a")
	if !i.UsedAt.Equal(now.Add(time.Second)) || i.Usable(now) || i.Starts != 1 {
		t.Errorf("after a success the invitation is %+v", i)
	}
	u.refused("Start", u.Start(t.Context(), state("a", "more")), invitations.ErrSpent)
	if got := u.invited("b"); !got.Usable(now) {
		t.Errorf("another invitation is used up: %+v", got)
	}
}

func revokeUnderWay(t *testing.T, u *user) {
	u.invite(invitation("a"))
	u.start(state("a", "a"))
	if err := u.RevokeInvitation(t.Context(), "invitation-a", now); err != nil {
		t.Fatal(err)
	}
	u.conclude(u.consume("a", "nonce", now), "connected", true, now)
	if i := u.invited("a"); i.UsedAt.IsZero() || i.RevokedAt.IsZero() {
		t.Errorf("the invitation is %+v, want it used and revoked", i)
	}
}

func expiredIsThere(t *testing.T, u *user) {
	i := invitation("a")
	i.CreatedAt, i.ExpiresAt = now.Add(-3*time.Hour), now.Add(-2*time.Hour)
	s := state("a", "a")
	s.CreatedAt, s.ExpiresAt = now.Add(-150*time.Minute), now.Add(-140*time.Minute)
	u.invite(i)
	u.start(s)
	i.Starts = 1
	u.sameInvitation(u.invited("a"), i)
	u.sameState(u.started("a"), s)
}

func separate(t *testing.T, u *user) {
	i := invitation("a")
	i.Hash = "one-hash"
	u.invite(i)
	s := state("a", "a")
	s.Hash, s.Invitation = "one-hash", "one-hash"
	u.start(s)
	got, err := u.Invitation(t.Context(), "one-hash")
	if err != nil {
		t.Fatal(err)
	}
	i.Starts = 1
	u.sameInvitation(got, i)
	if names := u.list(now); len(names) != 1 {
		t.Errorf("listed %v", names)
	}
}

func cancelled(t *testing.T, u *user) {
	u.invite(invitation("a"))
	u.start(state("a", "a"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := u.Consume(ctx, "state-a", "cookie-a", "sandbox", "nonce", now)
	if err == nil || errors.Is(err, invitations.ErrRefused) {
		t.Errorf("Consume: %v", err)
	}
	if err := u.Start(ctx, state("a", "b")); err == nil || errors.Is(err, invitations.ErrSpent) {
		t.Errorf("Start: %v", err)
	}
	if _, err := u.State(ctx, "state-a"); err == nil || errors.Is(err, invitations.ErrNotFound) {
		t.Errorf("State: %v", err)
	}
	u.sameState(u.started("a"), state("a", "a"))
	if starts := u.invited("a").Starts; starts != 1 {
		t.Errorf("%d starts are counted, want 1", starts)
	}
}

func repeats(t *testing.T, u *user) {
	u.invite(invitation("a"))
	u.start(state("a", "a"))
	if starts := u.invited("a").Starts; starts != 1 {
		t.Errorf("one start was counted %d times", starts)
	}
	s := u.consume("a", "nonce", now)
	_, err := u.Consume(t.Context(), "state-a", "cookie-a", "sandbox", "another nonce", now)
	u.refused("a second Consume", err, invitations.ErrRefused)
	u.conclude(s, "connected", true, now)
	u.refused("Start of a used invitation", u.Start(t.Context(), state("a", "b")), invitations.ErrSpent)

	u.invite(invitation("b"))
	for n := range invitations.MaxStarts {
		u.start(state("b", fmt.Sprint(n)))
	}
	u.refused("a start too many", u.Start(t.Context(), state("b", "more")), invitations.ErrSpent)
	if err := u.RevokeInvitation(t.Context(), "invitation-b", now); err != nil {
		t.Errorf("revoking: %v", err)
	}
}

// race lets n callers go at once and returns what each got.
func race(n int, call func(n int) error) []error {
	errs := make([]error, n)
	gun := make(chan struct{})
	var racers sync.WaitGroup
	for i := range n {
		racers.Go(func() {
			<-gun
			errs[i] = call(i)
		})
	}
	close(gun)
	racers.Wait()
	return errs
}
