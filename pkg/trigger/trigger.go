// Package trigger decodes the events of the rotate function, passes their requests
// to the engine, and answers in the form that the sender expects.
//
// It accepts:
//   - a request, such as {"op":"sweep"}, from a direct call or from EventBridge
//     Scheduler, which delivers its Input unchanged;
//   - a scheduled event of an EventBridge rule (aws.events) or of EventBridge
//     Scheduler without Input (aws.scheduler): a sweep;
//   - an SQS event with requests as message bodies.
//
// A request with an unknown field is refused, because ignoring the field would
// change what was asked: {"op":"ensure",...,"min_ttl":600} has a misspelled field
// and must not run without it. Envelopes are AWS's and may get new fields, so
// unknown fields in them are ignored.
package trigger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/tokenturn/tokenturn/pkg/metrics"
	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// ErrEvent says that the function does not accept an event.
var ErrEvent = errors.New("the function accepts an EventBridge scheduled event, an SQS event with " +
	"requests as message bodies, or a request")

// Engine carries out a request. An error means that nothing could be done, except
// rotation.ErrNotHandedOn, which comes with a report. The report has the outcome of
// each connection.
type Engine interface {
	Do(ctx context.Context, request rotation.Request) (rotation.Report, error)
}

// Handler answers events. It is a lambda.Handler, and safe for concurrent use
// if its parts are.
type Handler struct {
	Engine Engine
	Log    *slog.Logger
	Meter  *metrics.Meter // nil: nothing is measured
	// Begin, if set, is called before each event. A Lambda environment may have
	// been frozen since the last one, with connections that died meanwhile.
	Begin func()
}

// Invoke answers one event: a request and a scheduled event with the report,
// an SQS event with the messages that SQS must deliver again
// (ReportBatchItemFailures). An error becomes the function's error, after which
// Lambda repeats an asynchronous event. If it wraps rotation.ErrNotHandedOn,
// the request was carried out; otherwise nothing could be done.
func (h Handler) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	defer h.Meter.Flush()
	if h.Begin != nil {
		h.Begin()
	}
	answer, err := h.answer(ctx, payload)
	if err != nil {
		h.Log.ErrorContext(ctx, "event not handled", "error", err)
		return nil, err
	}
	return json.Marshal(answer)
}

func (h Handler) answer(ctx context.Context, payload []byte) (any, error) {
	event, err := Decode(payload)
	if err != nil {
		return nil, err
	}
	if event.Messages != nil {
		return h.batch(ctx, event.Messages), nil
	}
	return h.do(ctx, event.Request)
}

// Event is a decoded event: one request, or the messages of a batch.
type Event struct {
	Request  rotation.Request
	Messages []events.SQSMessage // not nil: a batch
}

// Decode recognizes the accepted events. The error wraps ErrEvent or
// rotation.ErrBadRequest and repeats no value except that of a short field that
// names the kind of event.
func Decode(payload []byte) (Event, error) {
	var envelope struct {
		Op         *json.RawMessage    `json:"op"`
		Records    []events.SQSMessage `json:"Records"`
		Source     string              `json:"source"`
		DetailType string              `json:"detail-type"`
	}
	switch err := json.Unmarshal(payload, &envelope); {
	case err != nil:
		return Event{}, fmt.Errorf("malformed event: %w: %w", err, ErrEvent)
	case envelope.Records != nil:
		for _, m := range envelope.Records {
			if m.EventSource != "aws:sqs" {
				return Event{}, fmt.Errorf("a record comes from %.40q instead of aws:sqs: %w", m.EventSource, ErrEvent)
			}
		}
		return Event{Messages: envelope.Records}, nil
	case envelope.Source != "":
		if envelope.DetailType != "Scheduled Event" || envelope.Source != "aws.events" && envelope.Source != "aws.scheduler" {
			return Event{}, fmt.Errorf("an event of type %.40q from %.40q is not accepted: %w", envelope.DetailType,
				envelope.Source, ErrEvent)
		}
		return Event{Request: rotation.Request{Op: "sweep"}}, nil
	case envelope.Op != nil:
		request, err := DecodeRequest(payload)
		return Event{Request: request}, err
	}
	return Event{}, fmt.Errorf("the event has neither op, source nor Records: %w: %w", ErrEvent, rotation.ErrBadRequest)
}

// DecodeRequest reads the form of queue messages and direct calls. The engine
// checks whether the request is valid.
func DecodeRequest(text []byte) (rotation.Request, error) {
	var request rotation.Request
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(&request)
	if err == nil {
		if _, trailing := d.Token(); trailing != io.EOF {
			err = errors.New("more text follows the request")
		}
	}
	if _, mistimed := errors.AsType[*time.ParseError](err); mistimed { // its text repeats the value
		err = errors.New("not_before is not a time such as 2026-11-21T22:00:00Z")
	}
	if err != nil {
		return rotation.Request{}, fmt.Errorf("malformed request: %w: %w", err, rotation.ErrBadRequest)
	}
	return request, nil
}

// minTime is the least time before the deadline in which a message is started: later
// ones stay in the queue instead of being cut off.
const minTime = 5 * time.Second

// batch carries out messages one after the other and returns those that could not be
// processed, or that are the only trace of a follow-up that could not be sent. Every
// other message is done, whatever its outcome: each outcome has its own follow-up,
// and the queue must not repeat it. A malformed message is returned too, so that it
// reaches the dead-letter queue, where a person sees it.
func (h Handler) batch(ctx context.Context, messages []events.SQSMessage) events.SQSEventResponse {
	failures := []events.SQSBatchItemFailure{}
	for _, m := range messages {
		if err := h.message(ctx, m); err != nil {
			h.Log.ErrorContext(ctx, "message left in the queue", "message", m.MessageId, "error", err)
			failures = append(failures, events.SQSBatchItemFailure{ItemIdentifier: m.MessageId})
		}
	}
	return events.SQSEventResponse{BatchItemFailures: failures}
}

func (h Handler) message(ctx context.Context, m events.SQSMessage) error {
	if deadline, ok := ctx.Deadline(); ctx.Err() != nil || ok && time.Until(deadline) < minTime {
		return errors.New("no time left in this run")
	}
	request, err := DecodeRequest([]byte(m.Body))
	if err != nil {
		return err
	}
	_, err = h.do(ctx, request)
	return err
}

func (h Handler) do(ctx context.Context, request rotation.Request) (rotation.Report, error) {
	report, err := h.Engine.Do(ctx, request)
	if err != nil && !errors.Is(err, rotation.ErrNotHandedOn) {
		return report, err
	}
	h.Meter.Report(report)
	h.Log.InfoContext(ctx, "request carried out", "op", report.Op, "due", report.Due, "outcomes", report.Outcomes,
		"duration_ms", report.Duration)
	return report, err
}
