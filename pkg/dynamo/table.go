// Package dynamo keeps the ledger, the invitations, the consent states, the rate limiter
// and the notice claims in one DynamoDB table. It translates and decides nothing: packages
// rotation and consent decide what a write means and when it may happen.
//
// The table has the string keys pk and sk, the TTL attribute ttl, and the
// keys-only index due on due_bucket (string) and due_at (number), which also
// allows lists without reading the histories between the rows:
//
//	pk                     sk                                  other attributes
//	CONN#<connection>      LEDGER                              revision, record, due_bucket, due_at, ttl
//	CONN#<connection>      MINT#<epoch>#<generation>#<attempt> mint
//	CONN#<connection>      HISTORY#<time>#<nonce>              event, ttl
//	INVITE#<sha256>        INVITE                              invitation, nonce, expires, ttl, due_bucket, due_at
//	STATE#<sha256>         STATE                               state, nonce, expires, consumed_by, ttl
//	PACE#<name>            PACE                                next
//	NOTICE#<event>         NOTICE                              nonce, expires, ttl
//
// A ledger row has a ttl only while nobody has consented and there is nothing to do for the
// connection (rotation.Record.DeleteAt). Each write replaces the whole row, and its ttl.
//
// The maps record, mint (a token response), event, invitation and state have the JSON
// names of their types, so a new field never collides with an attribute that a condition
// or the index uses. Every name in an expression is aliased,
// because DynamoDB reserves several hundred words.
//
// The buckets of the index are due, for connections with a due time; idle, for
// connections without one; and invitation, ordered by expiry.
//
// A repeated request is distinguished from another writer's: each write that can be
// refused has a fresh nonce. A refusal by an item with this nonce means that the same
// write succeeded before, and that its answer was lost before the SDK sent it again.
package dynamo

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/attributevalue"
	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/expression"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Client is the part of *dynamodb.Client that the package uses. Its configuration must
// bound the time of a call.
type Client interface {
	GetItem(context.Context, *dynamodb.GetItemInput, ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error)
	PutItem(context.Context, *dynamodb.PutItemInput, ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error)
	UpdateItem(context.Context, *dynamodb.UpdateItemInput, ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error)
	Query(context.Context, *dynamodb.QueryInput, ...func(*dynamodb.Options)) (*dynamodb.QueryOutput, error)
	BatchGetItem(context.Context, *dynamodb.BatchGetItemInput, ...func(*dynamodb.Options)) (*dynamodb.BatchGetItemOutput,
		error)
	TransactWriteItems(context.Context, *dynamodb.TransactWriteItemsInput,
		...func(*dynamodb.Options)) (*dynamodb.TransactWriteItemsOutput, error)
}

// Table is the ledger and the consent store. It is safe for concurrent use.
type Table struct {
	client Client
	name   string
}

var (
	_ Client            = (*dynamodb.Client)(nil)
	_ rotation.Ledger   = (*Table)(nil)
	_ invitations.Store = (*Table)(nil)
)

// New returns the table with the given name or ARN. It makes no call.
func New(client Client, name string) *Table { return &Table{client, name} }

type item = map[string]types.AttributeValue

const (
	dueIndex     = "due"
	dueBucket    = "due" // one partition of the index; its load is far below a partition's limit
	idleBucket   = "idle"
	inviteBucket = "invitation"

	ledgerSort   = "LEDGER"
	responseSort = "MINT#"
	eventSort    = "HISTORY#" // below LEDGER, so that a load does not read it
	inviteSort   = "INVITE"
	stateSort    = "STATE"

	connectionPrefix = "CONN#"
	invitePrefix     = "INVITE#"
	statePrefix      = "STATE#"

	historyLife = 90 * 24 * time.Hour
	consentLife = 7 * 24 * time.Hour // past expiry, so that a late visitor sees why the link no longer works
)

// key is the primary key of an item.
type key struct {
	PK string `json:"pk"`
	SK string `json:"sk"`
}

// listed is a row's place in the index.
type listed struct {
	DueBucket string `json:"due_bucket"`
	DueAt     int64  `json:"due_at"` // Unix seconds; 0 in the bucket idle
}

func (k key) item() item {
	return item{"pk": &types.AttributeValueMemberS{Value: k.PK}, "sk": &types.AttributeValueMemberS{Value: k.SK}}
}

func connectionKey(c token.Connection, sort string) key {
	return key{connectionPrefix + c.String(), sort}
}

func responseKey(c token.Connection, m rotation.ResponseKey) key {
	return connectionKey(c, fmt.Sprintf("%s%010d#%010d#%s", responseSort, m.Epoch, m.Generation, m.Attempt))
}

// eventKey sorts by time and, within one write, by position.
func eventKey(c token.Connection, at time.Time, nonce string, position int) key {
	return connectionKey(c, fmt.Sprintf("%s%s#%s#%02d", eventSort, at.UTC().Format("2006-01-02T15:04:05.000000000Z"),
		nonce, position))
}

func inviteKey(hash string) key { return key{invitePrefix + hash, inviteSort} }

func stateKey(hash string) key { return key{statePrefix + hash, stateSort} }

// encode makes an item of a row, with the names of its JSON tags. It omits zero times, as
// omitzero says, because attributevalue does not support omitzero.
func encode(row any) (item, error) {
	out, err := attributevalue.MarshalMapWithOptions(row, func(o *attributevalue.EncoderOptions) {
		o.TagKey = "json"
		o.UseEncodingMarshalers = true
	})
	if err != nil {
		return nil, err
	}
	dropZeroTimes(out)
	return out, nil
}

func dropZeroTimes(m item) {
	for name, value := range m {
		switch v := value.(type) {
		case *types.AttributeValueMemberS:
			if v.Value == "0001-01-01T00:00:00Z" {
				delete(m, name)
			}
		case *types.AttributeValueMemberM:
			dropZeroTimes(v.Value)
		}
	}
}

func decode(from item, row any) error {
	return attributevalue.UnmarshalMapWithOptions(from, row, func(o *attributevalue.DecoderOptions) {
		o.TagKey = "json"
		o.UseEncodingUnmarshalers = true
	})
}

// text reads a string attribute; empty if it is missing.
func text(from item, name string) string {
	if s, ok := from[name].(*types.AttributeValueMemberS); ok {
		return s.Value
	}
	return ""
}

// absent is the condition that there is no item yet.
var absent = expression.Name("pk").AttributeNotExists()

// present is the condition that there is an item.
var present = expression.Name("pk").AttributeExists()

// when builds a condition.
func when(condition expression.ConditionBuilder) (expression.Expression, error) {
	return expression.NewBuilder().WithCondition(condition).Build()
}

// put is a write of a whole item under a condition.
func (t *Table) put(row any, condition expression.ConditionBuilder) (*types.Put, error) {
	it, err := encode(row)
	if err != nil {
		return nil, fmt.Errorf("encoding: %w", err)
	}
	e, err := when(condition)
	if err != nil {
		return nil, err
	}
	return &types.Put{TableName: &t.name, Item: it, ConditionExpression: e.Condition(),
		ExpressionAttributeNames:            e.Names(),
		ExpressionAttributeValues:           e.Values(),
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld}, nil
}

// update is a write of some attributes under a condition.
func (t *Table) update(k key, set expression.UpdateBuilder, condition expression.ConditionBuilder) (*types.Update,
	error) {
	e, err := expression.NewBuilder().WithUpdate(set).WithCondition(condition).Build()
	if err != nil {
		return nil, err
	}
	return &types.Update{TableName: &t.name, Key: k.item(), UpdateExpression: e.Update(),
		ConditionExpression:      e.Condition(),
		ExpressionAttributeNames: e.Names(), ExpressionAttributeValues: e.Values(),
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld}, nil
}

func (t *Table) doPut(ctx context.Context, p *types.Put) error {
	_, err := t.client.PutItem(ctx, &dynamodb.PutItemInput{TableName: p.TableName, Item: p.Item,
		ConditionExpression: p.ConditionExpression, ExpressionAttributeNames: p.ExpressionAttributeNames,
		ExpressionAttributeValues:           p.ExpressionAttributeValues,
		ReturnValuesOnConditionCheckFailure: p.ReturnValuesOnConditionCheckFailure}, patient)
	return err
}

// doUpdate returns the item after the update.
func (t *Table) doUpdate(ctx context.Context, u *types.Update) (item, error) {
	out, err := t.client.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: u.TableName, Key: u.Key,
		UpdateExpression:    u.UpdateExpression,
		ConditionExpression: u.ConditionExpression, ExpressionAttributeNames: u.ExpressionAttributeNames,
		ExpressionAttributeValues: u.ExpressionAttributeValues, ReturnValues: types.ReturnValueAllNew,
		ReturnValuesOnConditionCheckFailure: u.ReturnValuesOnConditionCheckFailure}, patient)
	if err != nil {
		return nil, err
	}
	return out.Attributes, nil
}

// transact does all actions or none. With the nonce, at most 36 characters,
// DynamoDB itself recognizes a repetition within ten minutes
// (TransactWriteItems, ClientRequestToken).
func (t *Table) transact(ctx context.Context, nonce string, actions []types.TransactWriteItem) error {
	_, err := t.client.TransactWriteItems(ctx,
		&dynamodb.TransactWriteItemsInput{ClientRequestToken: &nonce, TransactItems: actions}, patient)
	return err
}

// get reads one item, strongly consistent; nil if it does not exist.
func (t *Table) get(ctx context.Context, k key) (item, error) {
	out, err := t.client.GetItem(ctx, &dynamodb.GetItemInput{TableName: &t.name, Key: k.item(),
		ConsistentRead: aws.Bool(true)})
	if err != nil {
		return nil, err
	}
	return out.Item, nil
}

// query yields the items with the keys, a page at a time, until the first error.
func (t *Table) query(ctx context.Context, keys expression.KeyConditionBuilder,
	shape ...func(*dynamodb.QueryInput)) iter.Seq2[item, error] {
	return func(yield func(item, error) bool) {
		e, err := expression.NewBuilder().WithKeyCondition(keys).Build()
		if err != nil {
			yield(nil, err)
			return
		}
		in := &dynamodb.QueryInput{TableName: &t.name, KeyConditionExpression: e.KeyCondition(),
			ExpressionAttributeNames: e.Names(), ExpressionAttributeValues: e.Values()}
		for _, f := range shape {
			f(in)
		}
		for pages := dynamodb.NewQueryPaginator(t.client, in); pages.HasMorePages(); {
			page, err := pages.NextPage(ctx)
			if err != nil {
				yield(nil, err)
				return
			}
			if !all(page.Items, yield) {
				return
			}
		}
	}
}

func strongly(in *dynamodb.QueryInput) { in.ConsistentRead = aws.Bool(true) }

// maxGet is how many items one BatchGetItem may ask for.
const maxGet = 100

// listing yields every item that the index lists in the buckets, as stored in the table,
// in no order, until the first error. The index is eventually consistent: an item that
// was added to it or moved in it a moment ago may be missing.
func (t *Table) listing(ctx context.Context, buckets ...string) iter.Seq2[item, error] {
	return func(yield func(item, error) bool) {
		keys := map[key]item{} // an item that moves between two pages is on both
		for _, bucket := range buckets {
			for it, err := range t.query(ctx, expression.Key("due_bucket").Equal(expression.Value(bucket)), byDueTime) {
				if err != nil {
					yield(nil, err)
					return
				}
				k := key{text(it, "pk"), text(it, "sk")}
				keys[k] = k.item()
			}
		}
		for some := range slices.Chunk(slices.Collect(maps.Values(keys)), maxGet) {
			asked := map[string]types.KeysAndAttributes{t.name: {Keys: some, ConsistentRead: aws.Bool(true)}}
			for len(asked) > 0 {
				out, err := t.client.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{RequestItems: asked})
				if err != nil {
					yield(nil, err)
					return
				}
				for _, items := range out.Responses {
					if !all(items, yield) {
						return
					}
				}
				asked = out.UnprocessedKeys // the keys that did not fit; at least one always fits
			}
		}
	}
}

func all(items []item, yield func(item, error) bool) bool {
	for _, it := range items {
		if !yield(it, nil) {
			return false
		}
	}
	return true
}

// connectionOf is the reverse of connectionKey.
func connectionOf(pk string) (token.Connection, error) {
	return token.ParseConnection(strings.TrimPrefix(pk, connectionPrefix))
}
