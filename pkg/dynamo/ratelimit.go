package dynamo

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/expression"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

var _ rotation.RateLimiter = (*Table)(nil)

const (
	limiterPrefix = "PACE#"
	limiterSort   = "PACE"
)

// Reserve implements rotation.RateLimiter with one update, or two if the clock is before
// earliest. The clock is in Unix nanoseconds.
func (t *Table) Reserve(ctx context.Context, name string, earliest time.Time, every time.Duration) (time.Time, error) {
	next := expression.Name("next")
	from := expression.Value(earliest.UnixNano())
	advance := expression.Set(next, next.Plus(expression.Value(every.Nanoseconds())))
	restart := expression.Set(next, expression.Value(earliest.Add(every).UnixNano()))
	var err error
	for range 3 { // another process may make a reservation in between
		for _, try := range []struct {
			set   expression.UpdateBuilder
			where expression.ConditionBuilder
		}{
			{advance, next.GreaterThanEqual(from)},
			{restart, next.AttributeNotExists().Or(next.LessThan(from))},
		} {
			var after item
			after, err = t.moveClock(ctx, name, try.set, try.where)
			if _, otherwise := refused(err, 0); otherwise {
				continue
			}
			if err != nil {
				return time.Time{}, fmt.Errorf("reserving at rate limiter %q in table %s: %w", name, t.name, err)
			}
			at, err := strconv.ParseInt(number(after, "next"), 10, 64)
			if err != nil {
				return time.Time{}, fmt.Errorf("decoding rate limiter %q of table %s: %w", name, t.name, err)
			}
			return time.Unix(0, at).Add(-every), nil
		}
	}
	return time.Time{}, fmt.Errorf("reserving at rate limiter %q in table %s: %w", name, t.name, err)
}

func (t *Table) moveClock(ctx context.Context, name string, set expression.UpdateBuilder,
	where expression.ConditionBuilder) (item, error) {
	update, err := t.update(key{limiterPrefix + name, limiterSort}, set, where)
	if err != nil {
		return nil, err
	}
	return t.doUpdate(ctx, update)
}

// number reads a number attribute; empty if it is missing.
func number(from item, name string) string {
	if n, ok := from[name].(*types.AttributeValueMemberN); ok {
		return n.Value
	}
	return ""
}
