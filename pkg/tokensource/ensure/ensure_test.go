package ensure_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/smithy-go"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/tokensource"
	"github.com/tokenturn/tokenturn/pkg/tokensource/ensure"
	"github.com/tokenturn/tokenturn/pkg/trigger"
)

var acme = token.Connection{Environment: "sandbox", Name: "acme"}

// deployed is Lambda with the rotate function's own decoding and encoding in it.
type deployed struct {
	trigger.Handler
	t *testing.T
}

func (d deployed) Invoke(ctx context.Context, in *lambda.InvokeInput, _ ...func(*lambda.Options)) (*lambda.InvokeOutput,
	error) {
	if *in.FunctionName != "rotate" || in.InvocationType != "" {
		d.t.Errorf("%s was called by %q", *in.FunctionName, in.InvocationType)
	}
	answer, err := d.Handler.Invoke(ctx, in.Payload)
	if err != nil {
		return &lambda.InvokeOutput{StatusCode: 200, FunctionError: new("Unhandled"),
			Payload: []byte(`{"errorMessage":"canary-f00d"}`)}, nil
	}
	return &lambda.InvokeOutput{StatusCode: 200, Payload: answer}, nil
}

// engine answers every request with one outcome.
type engine struct {
	report  rotation.ConnectionReport
	request rotation.Request
}

func (e *engine) Do(_ context.Context, request rotation.Request) (rotation.Report, error) {
	e.request = request
	return rotation.Report{Op: request.Op, Connections: []rotation.ConnectionReport{e.report}}, nil
}

func renew(t *testing.T, report rotation.ConnectionReport, min time.Duration) (rotation.Request, error) {
	e := &engine{report: report}
	f := ensure.Function(deployed{trigger.Handler{Engine: e, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}, t},
		"rotate")
	return e.request, errors.Join(f.Renew(t.Context(), acme, min), func() error { return check(e.request, min) }())
}

// check verifies that the function decoded the request as intended.
func check(got rotation.Request, min time.Duration) error {
	if got.Op != "ensure" || got.Connection != acme.String() || time.Duration(got.MinTTLSeconds)*time.Second < min ||
		time.Duration(got.MinTTLSeconds)*time.Second >= min+time.Second {
		return errors.New("the function was asked something else")
	}
	return nil
}

func TestEveryOutcomeHasItsError(t *testing.T) {
	all := []error{tokensource.ErrNeedsConsent, tokensource.ErrNotFound, tokensource.ErrRotationInProgress}
	for outcome, want := range map[rotation.Outcome]error{
		rotation.Rotated: nil, rotation.Published: nil, rotation.Recovered: nil, rotation.Fresh: nil,
		rotation.ConsentNeeded: tokensource.ErrNeedsConsent, rotation.NotFound: tokensource.ErrNotFound,
		rotation.Busy: tokensource.ErrRotationInProgress, rotation.Deferred: tokensource.ErrRotationInProgress,
		rotation.Unknown:      tokensource.ErrRotationInProgress,
		rotation.InQuarantine: errors.ErrUnsupported, rotation.ConfigError: errors.ErrUnsupported,
		rotation.Failed: errors.ErrUnsupported, // any but those above
	} {
		_, err := renew(t, rotation.ConnectionReport{Connection: acme, Outcome: outcome, Detail: "the reason"},
			90*time.Second)
		if (err == nil) != (want == nil) {
			t.Errorf("%s: error %v", outcome, err)
			continue
		}
		for _, each := range all {
			if errors.Is(err, each) != (each == want) {
				t.Errorf("%s: error %v", outcome, err)
			}
		}
		if err != nil && !strings.Contains(err.Error(), "the reason") {
			t.Errorf("%s: error %v without the reason", outcome, err)
		}
	}
}

func TestTimeToTryAgainIsSaid(t *testing.T) {
	at := time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)
	_, err := renew(t, rotation.ConnectionReport{Connection: acme, Outcome: rotation.Deferred, RetryAt: at},
		1500*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "2026-11-21T22:00:00Z") {
		t.Errorf("error %v", err)
	}
}

func TestFunctionThatFails(t *testing.T) {
	// The engine's own check refuses this.
	_, err := renew(t, rotation.ConnectionReport{Connection: acme, Outcome: rotation.Fresh}, 0)
	if err != nil {
		t.Errorf("the scripted engine: %v", err)
	}
	failing := ensure.Function(deployed{trigger.Handler{Engine: refusing{}, Log: slog.New(slog.DiscardHandler)}, t},
		"rotate")
	if err := failing.Renew(t.Context(), acme, time.Minute); err == nil || !strings.Contains(err.Error(),
		"its log says why") || strings.Contains(err.Error(), "canary") {
		t.Errorf("error %v", err)
	}
	_, err = renew(t, rotation.ConnectionReport{Connection: token.Connection{Environment: "sandbox", Name: "other"},
		Outcome: rotation.Fresh}, time.Minute)
	if err == nil || !strings.Contains(err.Error(), "does not answer as the rotate function does") {
		t.Errorf("answer about another connection: %v", err)
	}
}

type refusing struct{}

func (refusing) Do(context.Context, rotation.Request) (rotation.Report, error) {
	return rotation.Report{}, rotation.ErrBadRequest
}

// invoked is a Lambda that answers with an error.
type invoked struct{ err error }

func (i invoked) Invoke(context.Context, *lambda.InvokeInput, ...func(*lambda.Options)) (*lambda.InvokeOutput, error) {
	return nil, i.err
}

func TestCallThatFails(t *testing.T) {
	denied := &smithy.GenericAPIError{Code: "AccessDeniedException", Message: "no"}
	err := ensure.Function(invoked{denied}, "rotate").Renew(t.Context(), acme, time.Minute)
	if !errors.Is(err, tokensource.ErrDenied) || !strings.Contains(err.Error(), "lambda:InvokeFunction") {
		t.Errorf("denied: %v", err)
	}
	err = ensure.Function(invoked{context.DeadlineExceeded}, "rotate").Renew(t.Context(), acme, time.Minute)
	if errors.Is(err, tokensource.ErrDenied) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("lost: %v", err)
	}
}

// answering is Lambda with any function in it.
type answering []byte

func (a answering) Invoke(context.Context, *lambda.InvokeInput, ...func(*lambda.Options)) (*lambda.InvokeOutput,
	error) {
	return &lambda.InvokeOutput{StatusCode: 200, Payload: a}, nil
}

// The answer of another function, or of another version, never counts as a renewed
// token.
func FuzzRenew(f *testing.F) {
	f.Add(`{"connections":[{"connection":"sandbox/acme","outcome":"rotated"}]}`)
	f.Add(`{"connections":[{"connection":"sandbox/other","outcome":"rotated"}]}`)
	f.Add(`{"connections":[{"connection":"sandbox/acme","outcome":"busy","retry_at":"soon"}]}`)
	f.Add(`{"connections":{"connection":"sandbox/acme"}}`)
	f.Add(`null`)
	f.Fuzz(func(t *testing.T, answer string) {
		err := ensure.Function(answering(answer), "rotate").Renew(t.Context(), acme, time.Minute)
		if err == nil && !(strings.Contains(answer, "acme") || strings.Contains(answer, `\u`)) {
			t.Errorf("%q passes for a renewal", answer)
		}
	})
}
