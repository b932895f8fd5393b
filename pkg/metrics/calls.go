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

// Calls makes the clients of an AWS configuration measure the calls that are
// denied to them; it goes into its APIOptions.
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
		// The message may repeat names of resources, so it stays with whoever logs the error.
		m.record(map[string]any{"service": awsmiddleware.GetServiceID(ctx), "operation": awsmiddleware.GetOperationName(ctx),
			"code": e.ErrorCode()},
			measure{[][]string{{"stack", "service"}, {"stack"}}, []value{{"Denied", count, 1}}})
	}
	return out, metadata, err
}

// keyTrouble are codes for a KMS key that may be used and cannot be: disabled,
// scheduled for deletion, or out of reach. The services put it differently.
var keyTrouble = []string{"DecryptionFailure", "DisabledException", "EncryptionFailure", "KMSDisabled",
	"KMSDisabledException", "KMSInvalidState", "KMSInvalidStateException", "KeyUnavailableException"}

func isDenial(code string) bool {
	return strings.Contains(code, "AccessDenied") || code == "AuthorizationError" || code == "KMSOptInRequired" ||
		slices.Contains(keyTrouble, code)
}
