//go:build conformance

package conformance

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// TestTenGenerations is the main job: an invitation, consent in a browser, ten
// rotations on schedule, and after each a consumer that has a working token.
func TestTenGenerations(t *testing.T) {
	t.Parallel()
	for _, grace := range []int{0, 1} {
		t.Run(fmt.Sprintf("GRACE=%d", grace), func(t *testing.T) {
			t.Parallel()
			in := install(t, startCloud(t), startProvider(t, grace, 20*time.Second), "ten", patient)
			in.connect("peer/acme")
			if d := in.works("peer/acme"); d.Epoch != 1 || d.Generation != 0 {
				t.Fatalf("the first published pair is (%d, %d), want (1, 0)", d.Epoch, d.Generation)
			}
			sweeps, took := in.generations("peer/acme", 10, 4*time.Minute)
			in.presentedOnce(11, 10)
			searched := in.keepsSecrets()
			t.Logf("GRACE=%d: 10 generations in %v and %d sweeps, %d versions in the secret store, %d + %d cold starts; %s",
				grace, took.Round(time.Second), sweeps, in.versions("peer/acme"), in.rotate.ColdStarts(), in.callback.ColdStarts(),
				searched)
		})
	}
}

// TestTenGenerationsOnABadDay forces ten rotations while a fifth of all calls to
// AWS is throttled and the answer of a fifth of all writes is lost. Sweeps and
// queue messages finish what a run had to leave. The test's own reads are hit as
// well, and retried.
func TestTenGenerationsOnABadDay(t *testing.T) {
	t.Parallel()
	const lose, refuse, limit = 0.2, 0.2, 6 * time.Minute
	c := startCloud(t)
	in := install(t, c, startProvider(t, 0, 2*time.Hour), "faults", quick)
	in.connect("peer/acme")
	c.faults(lose, refuse)
	started, runs, early, outcomes := time.Now(), 0, 0, map[string]int{}
	for last := int64(0); last < 10; {
		if time.Since(started) > limit {
			t.Fatalf("generation %d of 10 after %v, %d runs, %v; the last answers:\n%s", last, limit, runs, outcomes,
				in.answers.tail(2000))
		}
		r := in.try(`{"op":"rotate","connection":"peer/acme"}`)
		outcomes[r.outcome("peer/acme")]++
		runs++
		in.try(scheduled)
		in.deliver()
		d := in.read("peer/acme")
		switch {
		case d.Generation < last:
			t.Fatalf("peer/acme went back from generation %d to %d", last, d.Generation)
		case d.Generation == last:
			time.Sleep(500 * time.Millisecond) // after a failure, tokenturn waits
		case in.use(d) != http.StatusOK: // W4: redeemed again, and publishing has to wait
			early++
		}
		last = d.Generation
	}
	took := time.Since(started)
	c.faults(0, 0)
	pairs := in.settle("peer/acme")
	in.presentedOnce(pairs, pairs-1)
	searched := in.keepsSecrets()
	struck := map[string]int{}
	calls, _ := c.log(0)
	for _, call := range calls {
		if call.Who == keyOfRotate && call.Fault != "" {
			struck[call.Fault]++
		}
	}
	if struck["lose"] == 0 || struck["refuse"] == 0 {
		t.Errorf("the rotate function met %v faults, want some of both kinds", struck)
	}
	t.Logf("--lose %v --refuse %v: %d generations in %v and %d forced rotations %v; %d answers lost and %d calls "+
		"throttled on the way; a reader was %d times between redeeming and publishing; %s",
		lose, refuse, pairs-1, took.Round(time.Second), runs, outcomes, struck["lose"], struck["refuse"], early, searched)
}

// settle sweeps until the secret store shows the newest pair that Doorkeeper has
// issued, and returns how many it has.
func (in *installation) settle(connection string) (pairs int) {
	in.t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(time.Second) {
		in.sweep()
		in.deliver()
		pairs = len(in.provider.issued().Tokens)
		if d := in.read(connection); int(d.Generation) == pairs-1 && in.use(d) == http.StatusOK {
			return pairs
		}
		if time.Now().After(deadline) {
			in.t.Fatalf("%s does not come to rest; the last answers:\n%s", connection, in.answers.tail(2000))
		}
	}
}

// due is when a token of less than fifty seconds is due: halfway, and a second for rounding.
func (in *installation) due(d document) time.Time {
	return d.ExpiresAt.Add(time.Second - in.provider.lifetime/2)
}

// generations sweeps until the connection has gone through n rotations. Each
// published generation follows the last one and its token works.
func (in *installation) generations(connection string, n int64, limit time.Duration) (sweeps int, took time.Duration) {
	in.t.Helper()
	started := time.Now()
	last := in.read(connection).Generation
	for target := last + n; last < target; {
		if took = time.Since(started); took > limit {
			in.t.Fatalf("%s is at generation %d of %d after %v and %d sweeps; the last answers:\n%s",
				connection, last, target, took, sweeps, in.answers.tail(2000))
		}
		in.sweep()
		sweeps++
		in.deliver()
		switch d := in.read(connection); d.Generation {
		case last:
			time.Sleep(max(100*time.Millisecond, time.Until(in.due(d)))) // the peers live in real time
		case last + 1:
			in.works(connection)
			last++
		default:
			in.t.Fatalf("%s went from generation %d to %d", connection, last, d.Generation)
		}
	}
	return sweeps, time.Since(started)
}

// presentedOnce insists that Doorkeeper has issued that many pairs, was shown
// so many of their refresh tokens, each exactly once, and no code twice.
func (in *installation) presentedOnce(pairs, rotations int) {
	in.t.Helper()
	shown, all := in.tap.presentations(), in.provider.issued()
	spent := 0
	for i, pair := range all.Tokens {
		n := shown[pair.Refresh]
		if n > 1 {
			in.t.Errorf("the refresh token of pair %d of %d was presented %d times", i+1, len(all.Tokens), n)
		}
		spent += min(n, 1)
		delete(shown, pair.Refresh)
	}
	if len(all.Tokens) != pairs || spent != rotations {
		in.t.Errorf("Doorkeeper has issued %d pairs and was shown %d of their refresh tokens, want %d and %d",
			len(all.Tokens), spent, pairs, rotations)
	}
	for _, grant := range all.Codes {
		if shown[grant.Code] > 1 {
			in.t.Errorf("a code was presented %d times", shown[grant.Code])
		}
		delete(shown, grant.Code)
	}
	if len(shown) > 0 {
		in.t.Errorf("%d codes or refresh tokens were presented that Doorkeeper never issued", len(shown))
	}
}
