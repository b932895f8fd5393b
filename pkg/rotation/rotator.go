package rotation

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// Config wires a Rotator. FollowUps, Pace, Notifier, Log and Now may be left out.
type Config struct {
	Ledger       Ledger
	SecretStore  SecretStore
	Sealer       Sealer
	Applications Applications
	Issuer       Issuer
	FollowUps    FollowUps   // nil: what a follow-up would do waits for the next sweep
	RateLimiter  RateLimiter // nil: each process keeps the whole pace by itself
	Notifier     Notifier    // nil: notices are logged only
	// Announcements keep notices about many connections to one each. nil: one of each process.
	Announcements Announcements
	Invitations   Invitations // nil: notices name the command that makes a link
	Log           *slog.Logger
	Now           func() time.Time
	Settings      Settings
}

// Rotator rotates connections. It keeps nothing between runs but its pace, and
// is safe for concurrent use; any number of Rotators may work on one ledger.
type Rotator struct {
	engine
	secrets   SecretStore
	sealer    Sealer
	followUps FollowUps
	pace      *limiter
	// invitations may be nil.
	invitations Invitations

	mu    sync.Mutex
	asked []time.Time // when the follow-up sweeps that were asked for come
}

// NewRotator checks the configuration.
func NewRotator(cfg Config) (*Rotator, error) {
	if cfg.Ledger == nil || cfg.SecretStore == nil || cfg.Sealer == nil || cfg.Applications == nil || cfg.Issuer == nil {
		return nil, errors.New("a rotator needs a ledger, a secret store, a sealer, applications and an issuer")
	}
	if err := cfg.Settings.Validate(); err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	k := engine{cfg.Ledger, cfg.Applications, cfg.Issuer, cfg.Notifier, cfg.Settings, cfg.Log, cfg.Now, newTold(cfg.Announcements)}
	k.fill()
	return &Rotator{engine: k, secrets: cfg.SecretStore, sealer: cfg.Sealer, followUps: cfg.FollowUps, invitations: cfg.Invitations,
		pace: newPacer(cfg.RateLimiter, cfg.Settings, k.log)}, nil
}

func (k *engine) fill() {
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	if k.clock == nil {
		k.clock = time.Now
	}
}

// ErrBadRequest says that a Request is not one of the accepted forms.
var ErrBadRequest = errors.New(`accepted are {"op":"sweep"}, {"op":"rotate","connection":"environment/name"}, ` +
	`{"op":"ensure","connection":"environment/name","min_ttl_seconds":600} and {"op":"publish","connection":"environment/name"}`)

// Do carries out a request. ErrBadRequest if it is malformed; any other error
// means that nothing could be done at all. What became of single connections
// is in the report.
func (r *Rotator) Do(ctx context.Context, request Request) (Report, error) {
	if request.Op == "sweep" && request.Connection == "" {
		return r.Sweep(ctx)
	}
	c, err := token.ParseConnection(request.Connection)
	if err != nil && request.Op != "sweep" {
		err = fmt.Errorf("%w (%w)", ErrBadRequest, err)
	}
	switch {
	case request.Op == "rotate" && err == nil:
		return r.Rotate(ctx, c)
	case request.Op == "ensure" && err == nil && request.MinTTLSeconds > 0:
		return r.Ensure(ctx, c, request)
	case request.Op == "publish" && err == nil:
		return r.Publish(ctx, c)
	case err != nil:
		return Report{}, err
	}
	return Report{}, fmt.Errorf("op %.20q: %w", request.Op, ErrBadRequest)
}

// Sweep handles every connection that is due, the most overdue first. What does
// not fit into the time of this run is left to a sweep that is asked for by
// FollowUps. Sweeps may overlap, and be asked for twice or late: each lists
// anew what is due, and those who meet at a connection find each other's attempt.
func (r *Rotator) Sweep(ctx context.Context) (Report, error) {
	started := time.Now()
	var due []token.Connection
	err := within(ctx, 2*storeTimeout, func(ctx context.Context) (err error) {
		due, err = r.ledger.Due(ctx, r.clock())
		return err
	})
	if err != nil {
		return Report{}, fmt.Errorf("listing due connections: %w", err)
	}
	run := r.newRun()
	reports := make([]ConnectionReport, len(due))
	var group errgroup.Group
	group.SetLimit(r.settings.Concurrency)
	begun := 0
	for i, c := range due {
		if !r.settings.timeLeft(ctx, 0) {
			run.outOfTime.Store(true)
		}
		if run.outOfTime.Load() {
			run.handOn(ctx)
			break
		}
		begun++
		group.Go(func() error {
			reports[i] = run.connection(ctx, c, situation{})
			return nil
		})
	}
	_ = group.Wait()
	run.tellUntold(ctx)
	if run.outOfTime.Load() || len(due) >= MaxDue {
		run.handOn(ctx)
	}
	report := newReport("sweep", started, reports[:begun])
	report.leave(len(due) - begun)
	return report, nil
}

// Rotate replaces the pair of c, due or not. An attempt that is live, a quiet
// period and a failure that asks to wait still hold.
func (r *Rotator) Rotate(ctx context.Context, c token.Connection) (Report, error) {
	return r.one(ctx, "rotate", c, situation{force: true}), nil
}

// Ensure replaces the pair of c if its access token has less than
// MinTTLSeconds left. A request with an epoch is a follow-up: it is sent on
// until NotBefore, and dropped once the connection has moved on.
func (r *Rotator) Ensure(ctx context.Context, c token.Connection, request Request) (Report, error) {
	if wait := request.NotBefore.Sub(r.clock()); wait > 0 {
		if overtaken, err := r.overtaken(ctx, c, request); overtaken || err != nil {
			return newReport("ensure", time.Now(), []ConnectionReport{{Connection: c, Outcome: Fresh}}), err
		}
		r.later(ctx, request, min(wait, MaxDelay))
		return newReport("ensure", time.Now(), []ConnectionReport{{Connection: c, Outcome: Deferred, RetryAt: request.NotBefore}}), nil
	}
	s := situation{minTTL: time.Duration(request.MinTTLSeconds) * time.Second}
	if request.Epoch > 0 {
		s.onlyAt = &ResponseKey{Epoch: request.Epoch, Generation: request.Generation}
	}
	return r.one(ctx, "ensure", c, s), nil
}

// overtaken reports whether the connection has moved on from where a follow-up
// was asked for. One that is not a follow-up, or waits longer than any token
// lives, is not passed on at all.
func (r *Rotator) overtaken(ctx context.Context, c token.Connection, request Request) (bool, error) {
	if request.Epoch == 0 || request.NotBefore.Sub(r.clock()) > daily {
		return false, fmt.Errorf("not_before goes with epoch and generation and lies within a day: %w", ErrBadRequest)
	}
	rec, _, err := r.loadRow(ctx, c)
	return err == nil && after(rec.Epoch, rec.Generation, request.Epoch, request.Generation), err
}

// Publish takes the steps that spend nothing.
func (r *Rotator) Publish(ctx context.Context, c token.Connection) (Report, error) {
	return r.one(ctx, "publish", c, situation{spendless: true}), nil
}

func (r *Rotator) one(ctx context.Context, op string, c token.Connection, s situation) Report {
	started := time.Now()
	run := r.newRun()
	report := run.connection(ctx, c, s)
	if s.force { // somebody wants this connection's state; follow-ups come in numbers, one by one
		run.tellUntold(ctx)
	} else {
		run.leaveUntold(ctx)
	}
	return newReport(op, started, []ConnectionReport{report})
}

// later asks for a follow-up. Losing one costs time, never a token: the next
// sweep does what it would have done.
func (r *Rotator) later(ctx context.Context, request Request, delay time.Duration) {
	if r.followUps == nil {
		return
	}
	err := within(context.WithoutCancel(ctx), storeTimeout, func(ctx context.Context) error {
		return r.followUps.Send(ctx, request, max(0, min(delay, MaxDelay)))
	})
	if err != nil {
		r.log.WarnContext(ctx, "follow-up not sent; the next sweep does its work", "op", request.Op, "connection", request.Connection, "error", err)
	}
}

// sweepBy asks for a sweep soon after at, unless one that was asked for before
// serves as well, or the schedule's comes first anyway.
func (r *Rotator) sweepBy(ctx context.Context, at time.Time) {
	const slack = 30 * time.Second
	now := r.clock()
	delay := at.Sub(now) + slack
	if delay > MaxDelay || delay > r.settings.Cadence {
		return
	}
	r.mu.Lock()
	r.asked = slices.DeleteFunc(r.asked, func(t time.Time) bool { return t.Before(now) })
	onItsWay := slices.ContainsFunc(r.asked, func(t time.Time) bool { return !t.Before(at) && !t.After(at.Add(slack)) })
	if !onItsWay {
		r.asked = append(r.asked, at.Add(slack))
	}
	r.mu.Unlock()
	if !onItsWay {
		r.later(ctx, Request{Op: "sweep"}, delay)
	}
}

// newID names an attempt; 128 bits, so two never meet.
func newID() string { return rand.Text() }
