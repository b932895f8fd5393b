package metrics

import (
	"context"
	"errors"
	"slices"
	"strings"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
)

// Calls makes the clients of an AWS configuration measure their denied calls; add it
// to the configuration's APIOptions.
func (m *Meter) Calls(stack *middleware.Stack) error {
	if m == nil {
		return nil
	}
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("tokenturn.Denied", m.denied), middleware.Before)
}

func (m *Meter) denied(ctx context.Context, in middleware.InitializeInput,
	next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
	out, metadata, err := next.HandleInitialize(ctx, in)
	if e, ok := errors.AsType[smithy.APIError](err); ok && isDenial(e.ErrorCode()) {
		// The message may contain names of resources, so it is left to the caller's log.
		m.record(map[string]any{"service": awsmiddleware.GetServiceID(ctx), "operation": awsmiddleware.GetOperationName(ctx),
			"code": e.ErrorCode()},
			measure{[][]string{{"stack", "service"}, {"stack"}}, []value{{"Denied", count, 1}}})
	}
	return out, metadata, err
}

// keyTrouble lists the codes for a KMS key that is allowed but cannot be used: disabled,
// scheduled for deletion, or unreachable. Each service has its own codes.
var keyTrouble = []string{"DecryptionFailure", "DisabledException", "EncryptionFailure", "KMSDisabled",
	"KMSDisabledException", "KMSInvalidState", "KMSInvalidStateException", "KeyUnavailableException"}

func isDenial(code string) bool {
	return strings.Contains(code, "AccessDenied") || code == "AuthorizationError" || code == "KMSOptInRequired" ||
		slices.Contains(keyTrouble, code)
}
