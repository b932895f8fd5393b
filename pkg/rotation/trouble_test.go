package rotation_test

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Of AWS Lambda and Amazon SQS, as the template sets them.
const (
	functionLife = 15 * time.Minute
	atOnce       = 2
	redelivery   = 90 * time.Minute // of a message that could not be processed
)

// operation is a harness that runs like a deployed installation: a sweep at
// every full hour, and a queue with messages that are processed in order, two
// at once. Each invocation is a process of its own with 15 minutes to live.
type operation struct {
	*harness
	t     *testing.T
	life  time.Duration // of one function
	skew  time.Duration // of the functions' clocks
	group sync.WaitGroup
	slots chan struct{}

	mu      sync.Mutex
	waiting []message
	reports []rotation.Report // of all invocations, in the order in which they ended
	served  []message
}

// message is one request in the queue.
type message struct {
	rotation.Request
	sent, served time.Time
}

func (b *harness) operation(t *testing.T) *operation {
	return &operation{harness: b, t: t, life: functionLife, slots: make(chan struct{}, atOnce)}
}

// run lets time pass. Functions that are still running at its end are waited for.
func (o *operation) run(d time.Duration) {
	o.pass(d)
	o.group.Wait()
}

// pass lets time pass, and functions go on.
func (o *operation) pass(d time.Duration) {
	end := time.Now().Add(d)
	for hour := time.Now().Truncate(time.Hour); ; {
		o.receive()
		if now := time.Now().Truncate(time.Hour); now.After(hour) {
			hour = now
			o.group.Go(func() { _, _ = o.invoke(rotation.Request{Op: "sweep"}) })
		}
		if !time.Now().Before(end) {
			return
		}
		time.Sleep(time.Second)
	}
}

// send puts a request into the queue as other programs do: the callback, a reader.
func (o *operation) send(request rotation.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting = append(o.waiting, message{Request: request, sent: time.Now()})
}

// receive processes the waiting messages, the oldest first, at most two at once.
func (o *operation) receive() {
	for _, request := range o.FollowUps.Take() {
		o.send(request)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := 0; i < len(o.waiting); i++ {
		if o.waiting[i].sent.After(time.Now()) {
			continue
		}
		select {
		case o.slots <- struct{}{}:
		default:
			return
		}
		m := o.waiting[i]
		o.waiting = slices.Delete(o.waiting, i, i+1)
		i--
		o.group.Go(func() { o.process(m) })
	}
}

func (o *operation) process(m message) {
	defer func() { <-o.slots }()
	_, err := o.invoke(m.Request)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		m.sent = time.Now().Add(redelivery)
		o.waiting = append(o.waiting, m)
		return
	}
	m.served = time.Now()
	o.served = append(o.served, m)
}

// invoke carries out a request in a process of its own.
func (o *operation) invoke(request rotation.Request) (rotation.Report, error) {
	ctx, cancel := context.WithTimeout(context.Background(), o.life)
	defer cancel()
	report, err := o.skewed(o.skew).Do(ctx, request)
	if err == nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.reports = append(o.reports, report)
	}
	return report, err
}

// skewed is a new process with a clock that is wrong by so much.
func (b *harness) skewed(by time.Duration) *rotation.Rotator {
	return b.rotatorBut(func(cfg *rotation.Config) {
		cfg.Issuer = cmp.Or[rotation.Issuer](b.issuer, b.Issuer)
		cfg.Now = func() time.Time { return time.Now().Add(by) }
	})
}

// outcomes counts what was reported of a connection.
func (o *operation) outcomes(c token.Connection) map[rotation.Outcome]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	counts := map[rotation.Outcome]int{}
	for _, report := range o.reports {
		for _, r := range report.Connections {
			if r.Connection == c {
				counts[r.Outcome]++
			}
		}
	}
	return counts
}

// span is a time during which an access token is accepted.
type span struct{ from, to time.Time }

// lives says when the issuer accepted each access token, other than service
// accounts', by its answers and not by any other clock.
func (b *harness) lives(t *testing.T) map[token.Secret]span {
	t.Helper()
	lifetime := b.Issuer.Personality.Lifetime
	if lifetime == 0 {
		lifetime = 5400 * time.Second
	}
	access, _ := b.Issuer.Secrets()
	spans, of := map[token.Secret]span{}, map[token.Fingerprint]token.Secret{}
	for _, e := range b.Journal.Entries() {
		switch effect := e.Effect.(type) {
		case rotationtest.Granted:
			if len(access) == 0 {
				t.Fatal("the issuer has granted more pairs than it knows")
			}
			of[effect.Pair], spans[access[0]] = access[0], span{e.At, e.At.Add(lifetime)}
			access = access[1:]
		case rotationtest.Ended:
			if s := spans[of[effect.Pair]]; e.At.Before(s.to) {
				spans[of[effect.Pair]] = span{s.from, e.At}
			}
		}
	}
	return spans
}

// dead is for how long, from then until now, the secret of c showed no access
// token that the issuer accepted.
func (b *harness) dead(t *testing.T, c token.Connection, from time.Time) time.Duration {
	t.Helper()
	lives, values := b.lives(t), map[string]token.Secret{}
	now := time.Now()
	gone, since, shown := time.Duration(0), from, span{}
	until := func(end time.Time) { // the token that is shown since then
		if end.Before(since) {
			return
		}
		gone += end.Sub(since)
		if first, last := later(since, shown.from), earlier(end, shown.to); last.After(first) {
			gone -= last.Sub(first)
		}
		since = end
	}
	for _, e := range b.Journal.Entries() {
		switch effect := e.Effect.(type) {
		case rotationtest.Stored:
			values[effect.Version.ID] = effect.Version.Value
		case rotationtest.Moved:
			if effect.Label != "AWSCURRENT" || e.Connection != c {
				continue
			}
			until(e.At)
			doc, err := token.ParseDocument(values[effect.To])
			shown = span{}
			if err == nil {
				shown = lives[doc.AccessToken]
			}
		}
	}
	until(now)
	return gone
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// breakdown is a gate that refuses calls until then.
func breakdown(end time.Time, fault rotationtest.Fault, calls ...string) rotationtest.Gate {
	return func(_ context.Context, at rotationtest.Passage) rotationtest.Fault {
		if at.When == before && time.Now().Before(end) && slices.Contains(calls, at.Call) {
			return fault
		}
		return rotationtest.Fault{}
	}
}

// forever is later than any test ends.
var forever = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

// counting is a gate that counts calls.
func (b *harness) counting(g rotationtest.Gate) (calls map[string]int) {
	var mu sync.Mutex
	calls = map[string]int{}
	b.gate(func(ctx context.Context, at rotationtest.Passage) rotationtest.Fault {
		if at.When == before {
			mu.Lock()
			calls[at.Call]++
			mu.Unlock()
		}
		if g == nil {
			return rotationtest.Fault{}
		}
		return g(ctx, at)
	})
	return calls
}

// noticesOf counts the notices of a kind.
func (b *harness) noticesOf(kind string) (n int) {
	for _, k := range b.notices() {
		if k == kind {
			n++
		}
	}
	return n
}

// inOrder fails the test unless the connection works. It also logs the trace of a failed
// test.
func (b *harness) inOrder(t *testing.T) {
	t.Helper()
	if err := b.works(t.Context()); err != nil {
		t.Errorf("acme is not in order: %v", err)
	}
	b.traceIfFailed(t)
}

// traceIfFailed shows what happened, where something was wrong.
func (b *harness) traceIfFailed(t *testing.T) {
	t.Helper()
	if trace := b.Journal.String(); t.Failed() && len(trace) < 20_000 {
		t.Log("\n" + trace)
	}
}

// scripted answers some presentations of refresh tokens itself; the server does
// not see those.
type scripted struct {
	*rotationtest.Issuer
	// answer gets how often the token was presented, this time included. nil: the
	// server answers.
	answer func(grant rotation.Grant, nth int) *rotation.Answer

	mu    sync.Mutex
	shown map[token.Fingerprint]int
	times []time.Time // of all presentations
}

func (s *scripted) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	if !grant.Code.IsZero() {
		return s.Issuer.Redeem(ctx, app, grant)
	}
	s.mu.Lock()
	if s.shown == nil {
		s.shown = map[token.Fingerprint]int{}
	}
	s.shown[grant.RefreshToken.Fingerprint()]++
	nth := s.shown[grant.RefreshToken.Fingerprint()]
	s.times = append(s.times, time.Now())
	s.mu.Unlock()
	if answer := s.answer(grant, nth); answer != nil {
		return *answer
	}
	return s.Issuer.Redeem(ctx, app, grant)
}

func (s *scripted) presentations() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.times)
}
