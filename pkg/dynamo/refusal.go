package dynamo

import (
	"errors"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// Codes of a cancelled transaction's reasons (TransactionCanceledException).
const (
	conditionFailed = "ConditionalCheckFailed"
	rivalPresent    = "TransactionConflict"
)

// refused reports whether the condition of the action at the position failed, and
// gives the item that is there; none, if there is none. A single write is position 0.
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

// anyRefused reports whether some condition of the write failed.
func anyRefused(err error) bool {
	_, single := refused(err, 0)
	return single || cancelledFor(err, conditionFailed)
}

// rivalled reports whether the write was turned away because another
// transaction was at work on one of its items at the same moment.
func rivalled(err error) bool {
	_, single := errors.AsType[*types.TransactionConflictException](err)
	return single || cancelledFor(err, rivalPresent)
}

func cancelledFor(err error, code string) bool {
	e, ok := errors.AsType[*types.TransactionCanceledException](err)
	return ok && slices.ContainsFunc(e.CancellationReasons, func(r types.CancellationReason) bool { return aws.ToString(r.Code) == code })
}

// patient lets the SDK repeat a write that met a rival, which it does not do by
// itself: a second click must not cost a person the consent.
func patient(o *dynamodb.Options) { o.Retryer = patientRetryer{o.Retryer} }

type patientRetryer struct{ aws.Retryer }

func (r patientRetryer) IsErrorRetryable(err error) bool {
	return rivalled(err) || r.Retryer.IsErrorRetryable(err)
}
