package dynamo

import (
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// Codes of a cancelled transaction's reasons (TransactionCanceledException).
const (
	conditionFailed = "ConditionalCheckFailed"
	otherWriter     = "TransactionConflict"
	throttled       = "ThrottlingError"
	overloaded      = "ProvisionedThroughputExceeded"
)

// refused reports whether the condition of the action at the position failed, and returns
// the existing item, if there is one. A single write is position 0.
func refused(err error, position int) (item, bool) {
	if e, ok := errors.AsType[*types.ConditionalCheckFailedException](err); ok {
		return e.Item, position == 0
	}
	if e, ok := errors.AsType[*types.TransactionCanceledException](err); ok && position < len(e.CancellationReasons) {
		reason := e.CancellationReasons[position]
		return reason.Item, aws.ToString(reason.Code) == conditionFailed
	}
	return nil, false
}

// anyRefused reports whether any condition of the write failed.
func anyRefused(err error) bool {
	_, single := refused(err, 0)
	return single || cancelledFor(err, conditionFailed)
}

// conflicted reports whether the write was refused because another transaction changed one
// of its items at the same time.
func conflicted(err error) bool {
	_, single := errors.AsType[*types.TransactionConflictException](err)
	return single || cancelledFor(err, otherWriter)
}

func cancelledFor(err error, codes ...string) bool {
	e, ok := errors.AsType[*types.TransactionCanceledException](err)
	return ok && slices.ContainsFunc(e.CancellationReasons, func(r types.CancellationReason) bool {
		return slices.Contains(codes, aws.ToString(r.Code))
	})
}

// transient reports whether the same write may succeed a moment later: another transaction
// or a throttle stopped it, and no condition failed.
func transient(err error) bool {
	return (conflicted(err) || cancelledFor(err, throttled, overloaded)) && !anyRefused(err)
}

// patient lets the SDK retry a write after a transient refusal. The SDK alone does not: it
// decides by the error's code, and a cancelled transaction has the same code for every
// reason. Without a retry, a second click could make a person's consent fail, and a short
// throttle the run of a connection.
func patient(o *dynamodb.Options) { o.Retryer = patientRetryer{o.Retryer} }

type patientRetryer struct{ aws.Retryer }

func (r patientRetryer) IsErrorRetryable(err error) bool {
	return transient(err) || r.Retryer.IsErrorRetryable(err)
}

// RetryDelay is shorter than the SDK's, because callers have a few seconds for
// all attempts.
func (r patientRetryer) RetryDelay(attempt int, err error) (time.Duration, error) {
	if transient(err) {
		return rand.N(100 * time.Millisecond << attempt), nil
	}
	return r.Retryer.RetryDelay(attempt, err)
}
