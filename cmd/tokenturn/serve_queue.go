package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/trigger"
)

// scheduledEvent is the event that an EventBridge rule sends.
const scheduledEvent = `{"version":"0","source":"aws.events","detail-type":"Scheduled Event","detail":{}}`

// grace is how long events in progress may continue at the end. Then they are cancelled,
// which never prevents a token response from being saved.
const grace = 10 * time.Second

// wakeInterval is how often the queue looks at the wall clock: a timer does not count the time
// that the machine sleeps.
const wakeInterval = 30 * time.Second

// queue does in one process what the schedule and the queue do in AWS: it delivers events to
// the handler of the rotate function. Messages are lost with the process; see system.resume.
type queue struct {
	now    func() time.Time
	sooner chan struct{} // has an element if a message may be due before the next wake

	mu      sync.Mutex
	waiting []message
}

// message is an event that is due at a time.
type message struct {
	event []byte
	at    time.Time
}

var _ rotation.FollowUps = (*queue)(nil)

func newQueue(now func() time.Time) *queue { return &queue{now: now, sooner: make(chan struct{}, 1)} }

// Send implements rotation.FollowUps.
func (q *queue) Send(_ context.Context, request rotation.Request, delay time.Duration) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encoding a follow-up: %w", err)
	}
	event, err := json.Marshal(events.SQSEvent{Records: []events.SQSMessage{{EventSource: "aws:sqs", Body: string(body)}}})
	if err != nil {
		return fmt.Errorf("encoding a follow-up: %w", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, message{event, q.now().Add(delay)})
	select {
	case q.sooner <- struct{}{}:
	default:
	}
	return nil
}

// due removes the messages that are due, and returns them and how long it is to the next one.
func (q *queue) due() (events [][]byte, next time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	next = wakeInterval
	q.waiting = slices.DeleteFunc(q.waiting, func(m message) bool {
		if left := timeLeft(m.at, q.now()); left > 0 {
			next = min(next, left)
			return false
		}
		events = append(events, m.event)
		return true
	})
	return events, next
}

// timeLeft is how long it is from now to at by the clock by which it is sooner: the wall clock
// counts the time that the machine sleeps, and the monotonic clock is not set back.
func timeLeft(at, now time.Time) time.Duration {
	return min(at.Sub(now), at.Round(0).Sub(now.Round(0)))
}

// deliver gives the handler a scheduled event at once and then once per every, and each message
// when it is due, until ctx is cancelled. It returns when all events have ended. As in AWS,
// events may overlap. beat is called at each wake, with the time of the last scheduled event.
func (q *queue) deliver(ctx context.Context, every time.Duration, handler trigger.Handler, beat func(swept time.Time)) {
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var underWay sync.WaitGroup
	begin := func(event []byte) {
		underWay.Go(func() { _, _ = handler.Invoke(working, event) }) // it logs its errors
	}
	var swept time.Time
	next := q.now() // of the next scheduled event
	for ctx.Err() == nil {
		now := q.now()
		sweep := timeLeft(next, now) <= 0
		if sweep {
			swept, next = now, next.Add(every)
			if timeLeft(next, now) <= 0 { // the machine slept
				next = now.Add(every)
			}
		}
		beat(swept)
		due, wake := q.due()
		if sweep {
			due = append(due, []byte(scheduledEvent))
		}
		for _, event := range due {
			begin(event)
		}
		timer := time.NewTimer(min(wake, timeLeft(next, q.now())))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-q.sooner:
		}
		timer.Stop()
	}
	defer time.AfterFunc(grace, cancel).Stop()
	underWay.Wait()
}
