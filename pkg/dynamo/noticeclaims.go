package dynamo

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/expression"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

var _ rotation.NoticeClaims = (*Table)(nil)

const (
	noticePrefix = "NOTICE#"
	noticeSort   = "NOTICE"
)

// First implements rotation.NoticeClaims with one update. The nonce lets a
// claim recognize its own repetition by the transport.
func (t *Table) First(ctx context.Context, event string, now, until time.Time) (bool, error) {
	nonce := rand.Text()
	expires := expression.Name("expires")
	update, err := t.update(key{noticePrefix + event, noticeSort},
		expression.Set(expires, expression.Value(until.UnixNano())).
			Set(expression.Name("ttl"), expression.Value(until.Unix())).
			Set(expression.Name("nonce"), expression.Value(nonce)),
		expires.AttributeNotExists().Or(expires.LessThanEqual(expression.Value(now.UnixNano()))))
	if err == nil {
		_, err = t.doUpdate(ctx, update)
	}
	if there, taken := refused(err, 0); taken {
		return text(there, "nonce") == nonce, nil
	}
	if err != nil {
		return false, fmt.Errorf("claiming the notice %q in table %s: %w", event, t.name, err)
	}
	return true, nil
}
