package rotationtest

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// The queue has the rules of Amazon SQS: a delay, a message that is invisible
// while it is processed and comes again unless it is deleted, and an end to that.
func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &FollowUps{Visibility: 10 * time.Minute, MaxReceives: 2, Journal: &Journal{}}
		start := time.Now()
		receive := func(within time.Duration) (Message, time.Duration, bool) {
			m, ok := f.Receive(t.Context(), time.Now().Add(within))
			return m, time.Since(start), ok
		}
		send := func(op string, delay time.Duration) {
			if err := f.Send(t.Context(), rotation.Request{Op: op}, delay); err != nil {
				t.Fatal(err)
			}
		}
		send("later", time.Minute)
		if m, at, ok := receive(30 * time.Second); ok {
			t.Errorf("at %v there is already %+v", at, m)
		}
		go func() {
			time.Sleep(10 * time.Second)
			send("soon", 0)
		}()
		if m, at, ok := receive(time.Hour); !ok || m.Request.Op != "soon" || at != 40*time.Second {
			t.Errorf("at %v: %+v", at, m)
		}
		later, at, ok := receive(time.Hour)
		if !ok || later.Request.Op != "later" || at != time.Minute {
			t.Errorf("at %v: %+v", at, later)
		}
		f.Delete(later.ID)
		if m, at, ok := receive(time.Hour); !ok || m.Request.Op != "soon" || m.Receives != 2 ||
			at != 10*time.Minute+40*time.Second {
			t.Errorf("at %v: %+v", at, m)
		}
		if m, at, ok := receive(time.Hour); ok {
			t.Errorf("at %v: %+v", at, m)
		}
		if dead := f.Dead(); len(dead) != 1 || dead[0].Op != "soon" || len(f.Waiting()) != 0 {
			t.Errorf("dead letters %+v, waiting %+v", dead, f.Waiting())
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		if m, ok := f.Receive(ctx, time.Now().Add(time.Hour)); ok || time.Since(start) > time.Hour+12*time.Minute {
			t.Errorf("a consumer that is asked to stop gets %+v at %v", m, time.Since(start))
		}
		if err := f.Send(t.Context(), rotation.Request{Op: "sweep"}, rotation.MaxDelay+time.Second); err == nil {
			t.Error("it takes a longer delay than Amazon SQS")
		}
	})
}
