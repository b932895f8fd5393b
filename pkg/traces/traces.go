// Package traces reports to AWS X-Ray how a function spent its time: one subsegment
// for each call to AWS, by service and operation, and for each POST to a token
// endpoint, by environment. A subsegment contains nothing else of a call: no URL, no
// header, no connection name, no error message.
//
// Lambda decides which events are traced, by the function's tracing mode and
// X-Ray's sampling rules, and says so in the trace header of each. Nothing is sent
// before the end of the event, because nothing may happen between receiving an answer
// of the token endpoint and saving it.
//
// See https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html
package traces

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/smithy-go/middleware"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// most is the largest number of subsegments sent for one event. A trace holds 500 KB.
const most = 1000

// Tracer collects subsegments until the end of an event. A nil Tracer does
// nothing. It is safe for concurrent use.
type Tracer struct {
	daemon net.Conn

	mu        sync.Mutex
	documents [][]byte
}

// New returns a tracer that sends to the X-Ray daemon at address, which Lambda
// has in AWS_XRAY_DAEMON_ADDRESS; nil if that is empty. Only a Handler makes it send.
func New(address string) (*Tracer, error) {
	if address == "" {
		return nil, nil
	}
	daemon, err := net.Dial("udp", address) // UDP: this sends nothing
	if err != nil {
		return nil, fmt.Errorf("opening a connection to the X-Ray daemon: %w", err)
	}
	return &Tracer{daemon: daemon}, nil
}

// Handler sends the subsegments of each of h's events after the event has ended.
func (t *Tracer) Handler(h lambda.Handler) lambda.Handler {
	if t == nil {
		return h
	}
	return handler{h, t}
}

type handler struct {
	lambda.Handler
	tracer *Tracer
}

// Invoke implements lambda.Handler.
func (h handler) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	defer h.tracer.flush()
	return h.Handler.Invoke(ctx, payload)
}

func (t *Tracer) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, document := range t.documents {
		_, _ = t.daemon.Write(document) // losing a trace does no harm
	}
	t.documents = nil
}

// Calls makes the clients of an AWS configuration trace their calls, all attempts of
// a call as one; add it to the configuration's APIOptions.
func (t *Tracer) Calls(stack *middleware.Stack) error {
	if t == nil {
		return nil
	}
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("tokenturn.Trace", func(ctx context.Context,
		in middleware.InitializeInput,
		next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
		started := time.Now()
		out, metadata, err := next.HandleInitialize(ctx, in)
		t.record(ctx, started, subsegment{Name: awsmiddleware.GetServiceID(ctx), Namespace: "aws", Error: err != nil,
			AWS: map[string]string{"operation": awsmiddleware.GetOperationName(ctx)}})
		return out, metadata, err
	}), middleware.Before)
}

// Issuer traces the POSTs to the token endpoint.
func (t *Tracer) Issuer(next rotation.Issuer) rotation.Issuer {
	if t == nil {
		return next
	}
	return issuer{next, t}
}

type issuer struct {
	rotation.Issuer
	tracer *Tracer
}

// Redeem implements rotation.Issuer.
func (i issuer) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	started := time.Now()
	answer := i.Issuer.Redeem(ctx, app, grant)
	i.tracer.record(ctx, started, subsegment{Name: "redeem " + app.Environment, Error: answer.Class != rotation.Captured,
		Annotations: map[string]string{"answer": string(answer.Class)}})
	return answer
}

type subsegment struct {
	Name        string            `json:"name"`
	ID          string            `json:"id"`
	TraceID     string            `json:"trace_id"`
	ParentID    string            `json:"parent_id"`
	Type        string            `json:"type"`
	Start       float64           `json:"start_time"` // Unix seconds
	End         float64           `json:"end_time"`
	Namespace   string            `json:"namespace,omitempty"`
	Error       bool              `json:"error,omitempty"`
	AWS         map[string]string `json:"aws,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// record stores a subsegment that ends now, if the event is traced.
func (t *Tracer) record(ctx context.Context, started time.Time, s subsegment) {
	root, parent, sampled := header(ctx)
	if !sampled {
		return
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	s.ID, s.TraceID, s.ParentID, s.Type = hex.EncodeToString(id[:]), root, parent, "subsegment"
	s.Start, s.End = unix(started), unix(time.Now())
	document, err := json.Marshal(s)
	if err != nil {
		return // cannot happen: there are only texts and finite numbers
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.documents) < most {
		t.documents = append(t.documents, append([]byte("{\"format\":\"json\",\"version\":1}\n"), document...))
	}
}

func unix(at time.Time) float64 { return float64(at.UnixMicro()) / 1e6 }

// header reads the trace header of the event, under aws-lambda-go's key: "Root=1-...;Parent=...;Sampled=1".
func header(ctx context.Context) (root, parent string, sampled bool) {
	text, _ := ctx.Value("x-amzn-trace-id").(string)
	for field := range strings.SplitSeq(text, ";") {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "Root":
			root = value
		case "Parent":
			parent = value
		case "Sampled":
			sampled = value == "1"
		}
	}
	return root, parent, sampled && root != "" && parent != ""
}
