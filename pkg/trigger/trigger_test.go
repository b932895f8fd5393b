package trigger_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/metrics"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/trigger"
)

var _ trigger.Engine = (*rotation.Rotator)(nil)

// engine records the requests and gives the configured answers.
type engine struct {
	asked []rotation.Request
	err   map[string]error // by op
}

// Do gives no report beside an error, as the real one, but for ErrNotHandedOn.
func (e *engine) Do(_ context.Context, r rotation.Request) (rotation.Report, error) {
	e.asked = append(e.asked, r)
	err := e.err[r.Op]
	if err != nil && !errors.Is(err, rotation.ErrNotHandedOn) {
		return rotation.Report{}, err
	}
	return rotation.Report{Op: r.Op, Due: 1, Outcomes: map[rotation.Outcome]int{rotation.Failed: 1},
		Connections: []rotation.ConnectionReport{{Connection: token.Connection{Environment: "sandbox", Name: "acme"},
			Outcome: rotation.Failed, Detail: "the detail"}}, Duration: 12}, err
}

func handler(e *engine) (trigger.Handler, *bytes.Buffer) {
	var log bytes.Buffer
	return trigger.Handler{Engine: e, Log: slog.New(slog.NewJSONHandler(&log, nil))}, &log
}

func sample(t *testing.T, name string) []byte {
	t.Helper()
	payload, err := os.ReadFile(filepath.Join("..", "..", "events", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

func TestSampleEventsReachTheEngine(t *testing.T) {
	sweep := rotation.Request{Op: "sweep"}
	publish := rotation.Request{Op: "publish", Connection: "sandbox/acme"}
	for name, want := range map[string][]rotation.Request{
		"schedule":           {sweep},
		"schedule-scheduler": {sweep},
		"sweep":              {sweep},
		"publish":            {publish},
		"rotate":             {{Op: "rotate", Connection: "sandbox/acme"}},
		"ensure":             {{Op: "ensure", Connection: "sandbox/acme", MinTTLSeconds: 600}},
		"sqs": {publish, {Op: "ensure", Connection: "production/acme", MinTTLSeconds: 600, Epoch: 1, Generation: 12,
			NotBefore: time.Date(2026, 11, 21, 22, 14, 0, 0, time.UTC)}, sweep},
	} {
		e := &engine{}
		h, _ := handler(e)
		if _, err := h.Invoke(t.Context(), sample(t, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(e.asked, want) {
			t.Errorf("%s: the engine was asked for\n%+v\nand not for\n%+v", name, e.asked, want)
		}
	}
}

func TestRequestIsAnsweredWithTheReport(t *testing.T) {
	h, log := handler(&engine{})
	begun := 0
	h.Begin = func() { begun++ }
	answer, err := h.Invoke(t.Context(), sample(t, "rotate"))
	want := `{"op":"rotate","due":1,"outcomes":{"failed":1},"connections":[{"connection":"sandbox/acme","outcome":"failed","detail":"the detail"}],"duration_ms":12}`
	if err != nil || string(answer) != want {
		t.Errorf("answer %s, %v", answer, err)
	}
	if begun != 1 {
		t.Errorf("Begin was called %d times", begun)
	}
	if !strings.Contains(log.String(), `"outcomes":{"failed":1}`) {
		t.Errorf("the log does not say what came of it: %s", log)
	}
}

// A bad outcome is an outcome. Only a message that could not be processed returns to the
// queue, and no other message with it.
func TestOnlyUnprocessedMessagesFail(t *testing.T) {
	e := &engine{err: map[string]error{"rotate": errors.New("listing: the table is away")}}
	h, log := handler(e)
	answer, err := h.Invoke(t.Context(), batch(t, `{"op":"sweep"}`, `{"op":"swe`,
		`{"op":"rotate","connection":"sandbox/acme"}`,
		`{"op":"publish","connection":"sandbox/acme"}`, `{"op":"ensure","connection":"sandbox/acme","min_ttl":600}`, `null`,
		`{"op":"sweep"} {}`))
	want := `{"batchItemFailures":[{"itemIdentifier":"m1"},{"itemIdentifier":"m2"},{"itemIdentifier":"m4"},{"itemIdentifier":"m6"}]}`
	if err != nil || string(answer) != want {
		t.Errorf("answer %s, %v", answer, err)
	}
	if len(e.asked) != 4 { // null is an empty request, which a real engine refuses
		t.Errorf("the engine was asked %d times", len(e.asked))
	}
	if !strings.Contains(log.String(), "the table is away") {
		t.Errorf("the log does not say why: %s", log)
	}
}

// errUnsent is the engine's error for a lost follow-up.
var errUnsent = fmt.Errorf("following up sandbox/acme: %w", rotation.ErrNotHandedOn)

// The message is the only remaining trace of the follow-up, so it stays in the queue. The
// result is still measured and logged.
func TestMessageWithALostFollowUpStaysInTheQueue(t *testing.T) {
	h, log := handler(&engine{err: map[string]error{"ensure": errUnsent}})
	var measured bytes.Buffer
	h.Meter = metrics.New(&measured, "stack-a", time.Now)
	answer, err := h.Invoke(t.Context(), batch(t, `{"op":"publish","connection":"sandbox/acme"}`,
		`{"op":"ensure","connection":"sandbox/acme","min_ttl_seconds":600}`))
	if want := `{"batchItemFailures":[{"itemIdentifier":"m1"}]}`; err != nil || string(answer) != want {
		t.Errorf("answer %s, %v; want %s", answer, err, want)
	}
	if n := strings.Count(log.String(), `"outcomes":{"failed":1}`); n != 2 || !strings.Contains(log.String(),
		errUnsent.Error()) {
		t.Errorf("the log names %d requests, or not what is wrong: %s", n, log)
	}
	if n := strings.Count(measured.String(), "\n"); n != 2 { // one line a connection
		t.Errorf("not both requests were measured: %s", &measured)
	}
}

// Lambda repeats a scheduled sweep that fails.
func TestSweepThatIsNotHandedOnFails(t *testing.T) {
	h, log := handler(&engine{err: map[string]error{"sweep": errUnsent}})
	if answer, err := h.Invoke(t.Context(), sample(t, "schedule")); !errors.Is(err, rotation.ErrNotHandedOn) ||
		answer != nil {
		t.Errorf("answer %s, %v", answer, err)
	}
	if !strings.Contains(log.String(), `"outcomes":{"failed":1}`) {
		t.Errorf("the log does not say what came of it: %s", log)
	}
}

// Every message that is not processed stays in the queue. A malformed one does, too, so
// that it reaches the dead-letter queue instead of disappearing.
func TestEveryErrorLeavesTheMessageInTheQueue(t *testing.T) {
	for _, cause := range []error{rotation.ErrBadRequest, rotation.ErrNotHandedOn, rotation.ErrConflict,
		context.DeadlineExceeded, errors.New("no table")} {
		h, _ := handler(&engine{err: map[string]error{"publish": fmt.Errorf("because: %w", cause)}})
		answer, err := h.Invoke(t.Context(), batch(t, `{"op":"publish","connection":"sandbox/acme"}`))
		if want := `{"batchItemFailures":[{"itemIdentifier":"m0"}]}`; err != nil || string(answer) != want {
			t.Errorf("%v: answer %s, %v; want %s", cause, answer, err, want)
		}
	}
}

func TestMessagesStayInTheQueueWhenTimeRunsOut(t *testing.T) {
	e := &engine{}
	h, _ := handler(e)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // as short before a function's deadline
	defer cancel()
	answer, err := h.Invoke(ctx, batch(t, `{"op":"sweep"}`, `{"op":"sweep"}`))
	if err != nil || string(answer) != `{"batchItemFailures":[{"itemIdentifier":"m0"},{"itemIdentifier":"m1"}]}` ||
		len(e.asked) != 0 {
		t.Errorf("answer %s, %v; asked %d times", answer, err, len(e.asked))
	}
}

func TestEmptyBatch(t *testing.T) {
	h, _ := handler(&engine{})
	answer, err := h.Invoke(t.Context(), []byte(`{"Records":[]}`))
	if err != nil || string(answer) != `{"batchItemFailures":[]}` {
		t.Errorf("answer %s, %v", answer, err)
	}
}

func TestOtherEventsAreRefused(t *testing.T) {
	const canary = "canary-77aa"
	for _, payload := range []string{
		``, `null`, `[]`, `"sweep"`, `{}`, `{"key1":"value1"}`, `{"op":7}`, `{"op":{"a":1}}`, `{"op":"sweep","connection":4}`,
		`{"op":"rotate","conection":"` + canary + `"}`, `{"op":"ensure","connection":"sandbox/acme","min_ttl_seconds":"600"}`,
		`{"op":"ensure","connection":"sandbox/acme","min_ttl_seconds":1.5}`, `{"op":"ensure","not_before":"` + canary + `"}`,
		`{"Records":[{"EventSource":"aws:sns","Sns":{"Message":"` + canary + `"}}]}`, `{"Records":{"a":1}}`,
		`{"source":"aws.ec2","detail-type":"Scheduled Event"}`, `{"source":"aws.events","detail-type":"Something else"}`,
		`{"version":"2.0","routeKey":"GET /healthz","rawPath":"/healthz"}`,
	} {
		e := &engine{}
		h, log := handler(e)
		_, err := h.Invoke(t.Context(), []byte(payload))
		if !errors.Is(err, trigger.ErrEvent) && !errors.Is(err, rotation.ErrBadRequest) {
			t.Errorf("%s: %v", payload, err)
		}
		if len(e.asked) != 0 {
			t.Errorf("%s: reached the engine", payload)
		}
		if err != nil && (!strings.Contains(err.Error(), "accept") || strings.Contains(err.Error()+log.String(),
			canary)) {
			t.Errorf("%s: the error does not say what is accepted, or repeats what was sent: %v", payload, err)
		}
	}
}

func TestEngineErrorIsTheFunctionsError(t *testing.T) {
	h, _ := handler(&engine{err: map[string]error{"sweep": errors.New("listing due connections: no table")}})
	if _, err := h.Invoke(t.Context(), sample(t, "schedule")); err == nil || !strings.Contains(err.Error(), "no table") {
		t.Errorf("got %v", err)
	}
}

func batch(t *testing.T, bodies ...string) []byte {
	t.Helper()
	type message struct {
		MessageID   string `json:"messageId"`
		Body        string `json:"body"`
		EventSource string `json:"eventSource"`
	}
	var event struct{ Records []message }
	for i, body := range bodies {
		event.Records = append(event.Records, message{"m" + string(rune('0'+i)), body, "aws:sqs"})
	}
	payload, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

func FuzzInvoke(f *testing.F) {
	for _, seed := range []string{`{"op":"sweep"}`, `{"Records":[{"eventSource":"aws:sqs","body":"{}"}]}`,
		`{"source":"aws.events"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		e := &engine{}
		h, _ := handler(e)
		answer, err := h.Invoke(t.Context(), payload)
		if err == nil && !json.Valid(answer) || err != nil && len(e.asked) != 0 {
			t.Errorf("answer %q, %v, asked %d times", answer, err, len(e.asked))
		}
	})
}
