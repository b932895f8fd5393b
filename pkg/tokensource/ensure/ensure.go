// Package ensure lets a token source ask tokenturn's rotate function for a token
// with enough life left:
//
//	rotate := ensure.Function(lambda.NewFromConfig(cfg), os.Getenv("TOKENTURN_ROTATE_FUNCTION"))
//	source, err := tokensource.New(secretsmanager.NewFromConfig(cfg), "production/acme",
//
// tokensource.WithEnsure(rotate, 5*time.Minute))
//
// The function's name is the stack's output RotateFunction, and the program needs
// lambda:InvokeFunction on it. This is a separate package, so that programs that do not
// use it need not contain the SDK's Lambda client.
//
// The program still cannot spend a refresh token: it asks the rotate function, which
// answers without secrets.
package ensure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/tokensource"
)

// Invoker is the one method of *lambda.Client that this package needs.
type Invoker interface {
	Invoke(ctx context.Context, in *lambda.InvokeInput, optFns ...func(*lambda.Options)) (*lambda.InvokeOutput, error)
}

// Function returns a Renewer that calls the rotate function of that name or ARN. It is safe for concurrent use.
func Function(client Invoker, name string) tokensource.Renewer { return function{client, name} }

type function struct {
	client Invoker
	name   string
}

// Renew implements tokensource.Renewer. Two calls make one rotation: the function itself
// checks whether too little life is left.
func (f function) Renew(ctx context.Context, connection token.Connection, min time.Duration) error {
	request, err := json.Marshal(map[string]any{"op": "ensure", "connection": connection.String(),
		"min_ttl_seconds": int64(math.Ceil(min.Seconds()))})
	if err != nil {
		return fmt.Errorf("encoding the request: %w", err)
	}
	out, err := f.client.Invoke(ctx, &lambda.InvokeInput{FunctionName: &f.name, Payload: request})
	if err != nil {
		return fmt.Errorf("calling function %s (which needs lambda:InvokeFunction): %w", f.name, denied(err))
	}
	if out.FunctionError != nil {
		return fmt.Errorf("function %s failed (%s): its log says why", f.name, *out.FunctionError)
	}
	return verdict(out.Payload, connection, f.name)
}

func denied(err error) error {
	if e, ok := errors.AsType[interface {
		error
		ErrorCode() string
	}](err); ok && e.ErrorCode() == "AccessDeniedException" {
		return fmt.Errorf("%w: %w", tokensource.ErrDenied, err)
	}
	return err
}

// report is the part of the function's answer that this package needs.
type report struct {
	Connections []struct {
		Connection token.Connection `json:"connection"`
		Outcome    string           `json:"outcome"`
		RetryAt    time.Time        `json:"retry_at"`
		Detail     string           `json:"detail"`
	} `json:"connections"`
}

// verdict returns nil if the function's answer says that the secret has a fresh token.
func verdict(answer []byte, connection token.Connection, name string) error {
	var r report
	if err := json.Unmarshal(answer, &r); err != nil || len(r.Connections) != 1 ||
		r.Connections[0].Connection != connection {
		return fmt.Errorf("function %s does not answer as the rotate function does", name)
	}
	c := r.Connections[0]
	detail := ""
	if c.Detail != "" {
		detail = ": " + c.Detail
	}
	switch c.Outcome {
	case "rotated", "published", "recovered", "fresh":
		return nil
	case "needs_consent":
		return fmt.Errorf("%w: invite the person with tokenturn connection invite %s%s", tokensource.ErrNeedsConsent,
			connection, detail)
	case "not_found":
		return fmt.Errorf("%w: function %s has no connection of this name%s", tokensource.ErrNotFound, name, detail)
	case "busy", "unknown", "deferred":
		again := ""
		if !c.RetryAt.IsZero() {
			again = ", and continues at " + c.RetryAt.UTC().Format(time.RFC3339)
		}
		return fmt.Errorf("%w: function %s answered %s%s%s", tokensource.ErrRotationInProgress, name, c.Outcome, again,
			detail)
	}
	return fmt.Errorf("function %s answered %q%s", name, c.Outcome, detail)
}
