package main

import (
	"context"
	"encoding/json"
	"fmt"
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

// queue does in one process what the schedule and the queue do in AWS: it delivers events to
// the handler of the rotate function. Messages are lost with the process; see system.resume.
type queue struct {
	due  chan []byte
	over chan struct{} // closed after the last delivery
}

var _ rotation.FollowUps = (*queue)(nil)

func newQueue() *queue { return &queue{make(chan []byte), make(chan struct{})} }

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
	time.AfterFunc(delay, func() {
		select {
		case q.due <- event:
		case <-q.over:
		}
	})
	return nil
}

// deliver gives the handler a scheduled event at once and then once per every, and each message
// when it is due, until ctx is cancelled. It returns when all events have ended. As in AWS,
// events may overlap.
func (q *queue) deliver(ctx context.Context, every time.Duration, handler trigger.Handler) {
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var underWay sync.WaitGroup
	begin := func(event []byte) {
		underWay.Go(func() { _, _ = handler.Invoke(working, event) }) // it logs its errors
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	begin([]byte(scheduledEvent))
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-ticker.C:
			begin([]byte(scheduledEvent))
		case event := <-q.due:
			begin(event)
		}
	}
	close(q.over)
	defer time.AfterFunc(grace, cancel).Stop()
	underWay.Wait()
}
