package dynamo

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/expression"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// maxActions is what one transaction may contain (TransactWriteItems).
const maxActions = 100

type ledgerRow struct {
	key
	listed
	TTL      int64           `json:"ttl,omitempty"` // only of a pending row without work to do
	Revision string          `json:"revision"`
	Record   rotation.Record `json:"record"`
}

type responseRow struct {
	key
	TokenResponse rotation.TokenResponse `json:"mint"`
}

type eventRow struct {
	key
	TTL   int64          `json:"ttl"`
	Event rotation.Event `json:"event"`
}

// Load implements rotation.Ledger with one strongly consistent query.
func (t *Table) Load(ctx context.Context, c token.Connection) (rotation.Record, []rotation.TokenResponse, error) {
	record, responses := rotation.Record{Connection: c}, []rotation.TokenResponse(nil)
	live := expression.Key("sk").GreaterThanEqual(expression.Value(ledgerSort))
	for it, err := range t.query(ctx, keysOf(c).And(live), strongly) {
		switch sort := text(it, "sk"); {
		case err != nil:
		case sort == ledgerSort:
			record, err = decodeRecord(it)
		case strings.HasPrefix(sort, responseSort):
			var row responseRow
			err = decode(it, &row)
			responses = append(responses, row.TokenResponse)
		}
		if err != nil {
			return rotation.Record{}, nil, fmt.Errorf("loading %s from table %s: %w", c, t.name, err)
		}
	}
	return record, responses, nil
}

// keysOf selects the items of a connection.
func keysOf(c token.Connection) expression.KeyConditionBuilder {
	return expression.Key("pk").Equal(expression.Value(connectionKey(c, "").PK))
}

func decodeRecord(it item) (rotation.Record, error) {
	var row ledgerRow
	if err := decode(it, &row); err != nil {
		return rotation.Record{}, fmt.Errorf("decoding %s: %w", text(it, "pk"), err)
	}
	row.Record.Revision = row.Revision
	return row.Record, nil
}

// Due implements rotation.Ledger with one query of the index for each megabyte of due
// entries, some 7,000 connections. The index is eventually consistent.
func (t *Table) Due(ctx context.Context, now time.Time) ([]token.Connection, error) {
	due := expression.Key("due_bucket").Equal(expression.Value(dueBucket)).
		And(expression.Key("due_at").LessThanEqual(expression.Value(now.Unix())))
	var connections []token.Connection
	for it, err := range t.query(ctx, due, byDueTime) {
		if err != nil {
			return nil, fmt.Errorf("listing what is due in table %s: %w", t.name, err)
		}
		// A row without a connection's name is not tokenturn's and must not stop the others.
		if c, err := connectionOf(text(it, "pk")); err == nil {
			connections = append(connections, c)
		}
		if len(connections) == rotation.MaxDue {
			break
		}
	}
	return connections, nil
}

func byDueTime(in *dynamodb.QueryInput) { in.IndexName = aws.String(dueIndex) }

// Write implements rotation.Ledger. The new revision is the nonce by which a
// repetition of the same write is recognized.
func (t *Table) Write(ctx context.Context, change rotation.Change) (string, error) {
	revision := rand.Text()
	err := t.write(ctx, change, revision)
	if err == nil {
		return revision, nil
	}
	if there, _ := refused(err, 0); text(there, "revision") == revision {
		return revision, nil
	}
	c := change.Record.Connection
	if anyRefused(err) || conflicted(err) {
		return "", fmt.Errorf("writing the ledger row of %s: %w", c, rotation.ErrConflict)
	}
	return "", fmt.Errorf("writing the ledger row of %s to table %s: %w", c, t.name, err)
}

// write does the change in one transaction. DynamoDB accepts 100 actions in one, and
// one action for each item. The part of Copy that does not fit is saved first, which
// is safe whatever happens to the transaction. The part of Bury that does not fit is
// left to a later write.
func (t *Table) write(ctx context.Context, change rotation.Change, revision string) error {
	record, err := t.putRecord(change.Record, revision)
	if err != nil {
		return err
	}
	if len(change.Copy)+len(change.Mark)+len(change.Bury)+len(change.History) == 0 {
		return t.doPut(ctx, record)
	}
	room := maxActions - 1 - len(change.Mark) - len(change.History)
	if room < 0 {
		return fmt.Errorf("the change has %d marks and %d events, but DynamoDB takes only %d writes at once",
			len(change.Mark), len(change.History), maxActions)
	}
	var ahead []rotation.TokenResponse
	change.Copy, ahead = cut(distinct(change.Copy, keyOf), room)
	change.Bury, _ = cut(distinct(change.Bury, itself), room-len(change.Copy))
	for _, m := range ahead {
		if err := t.SaveResponse(ctx, m); err != nil {
			return err
		}
	}
	others, err := t.otherActions(change, revision)
	if err != nil {
		return err
	}
	return t.transact(ctx, revision, append([]types.TransactWriteItem{{Put: record}}, others...))
}

// otherActions returns the actions of a change that follow the record's at position 0.
func (t *Table) otherActions(change rotation.Change, revision string) (actions []types.TransactWriteItem, err error) {
	c := change.Record.Connection
	for _, m := range change.Copy {
		response, err := t.copyResponse(m)
		if err != nil {
			return nil, err
		}
		actions = append(actions, types.TransactWriteItem{Update: response})
	}
	for _, m := range change.Mark {
		mark, err := t.mark(m)
		if err != nil {
			return nil, err
		}
		actions = append(actions, types.TransactWriteItem{Update: mark})
	}
	for _, k := range change.Bury {
		actions = append(actions, t.delete(responseKey(c, k)))
	}
	for i, e := range change.History {
		event, err := t.put(eventRow{eventKey(c, e.At, revision, i), e.At.Add(historyLife).Unix(), e}, absent)
		if err != nil {
			return nil, err
		}
		actions = append(actions, types.TransactWriteItem{Put: event})
	}
	return actions, nil
}

// distinct removes elements with the key of an earlier one.
func distinct[T any](all []T, key func(T) rotation.ResponseKey) []T {
	var some []T
	seen := map[rotation.ResponseKey]bool{}
	for _, v := range all {
		if k := key(v); !seen[k] {
			seen[k], some = true, append(some, v)
		}
	}
	return some
}

func keyOf(m rotation.TokenResponse) rotation.ResponseKey { return m.Key }

func itself(k rotation.ResponseKey) rotation.ResponseKey { return k }

// cut returns the first n and the rest.
func cut[T any](all []T, n int) (first, rest []T) {
	n = min(n, len(all))
	return all[:n], all[n:]
}

func (t *Table) putRecord(r rotation.Record, revision string) (*types.Put, error) {
	row := ledgerRow{key: connectionKey(r.Connection, ledgerSort), listed: listed{DueBucket: idleBucket},
		Revision: revision, Record: r}
	if !r.DueAt.IsZero() {
		row.listed = listed{dueBucket, ceilUnix(r.DueAt)}
	}
	if at := r.DeleteAt(); !at.IsZero() {
		row.TTL = ceilUnix(at)
	}
	unchanged := absent
	if r.Revision != "" {
		unchanged = expression.Name("revision").Equal(expression.Value(r.Revision))
	}
	return t.put(row, unchanged)
}

// ceilUnix rounds up, so that the index lists nothing before its time.
func ceilUnix(at time.Time) int64 {
	if at.Nanosecond() > 0 {
		return at.Unix() + 1
	}
	return at.Unix()
}

// copyResponse appends a response. A condition on its absence would refuse the whole
// change, so an update leaves an existing one unchanged.
func (t *Table) copyResponse(m rotation.TokenResponse) (*types.Update, error) {
	row, err := encode(responseRow{responseKey(m.Connection, m.Key), m})
	if err != nil {
		return nil, fmt.Errorf("encoding: %w", err)
	}
	response := expression.Name("mint")
	e, err := expression.NewBuilder().WithUpdate(expression.Set(response,
		response.IfNotExists(expression.Value(row["mint"])))).Build()
	if err != nil {
		return nil, err
	}
	return &types.Update{TableName: &t.name, Key: responseKey(m.Connection, m.Key).item(), UpdateExpression: e.Update(),
		ExpressionAttributeNames: e.Names(), ExpressionAttributeValues: e.Values()}, nil
}

// mark changes a response's state and reason, not its bytes.
func (t *Table) mark(m rotation.TokenResponse) (*types.Update, error) {
	set := expression.Set(expression.Name("mint.state"), expression.Value(string(m.State))).
		Set(expression.Name("mint.reason"), expression.Value(m.Reason))
	return t.update(responseKey(m.Connection, m.Key), set, present)
}

// SaveResponse implements rotation.Ledger.
func (t *Table) SaveResponse(ctx context.Context, m rotation.TokenResponse) error {
	put, err := t.put(responseRow{responseKey(m.Connection, m.Key), m}, absent)
	if err != nil {
		return fmt.Errorf("saving a token response of %s: %w", m.Connection, err)
	}
	err = t.doPut(ctx, put)
	if _, there := refused(err, 0); err != nil && !there {
		return fmt.Errorf("saving a token response of %s to table %s: %w", m.Connection, t.name, err)
	}
	return nil
}

// List returns the records of all connections, by name. It reads the index and
// the records, but not the histories, which are a thousand times larger.
func (t *Table) List(ctx context.Context) ([]rotation.Record, error) {
	var records []rotation.Record
	for it, err := range t.listing(ctx, idleBucket, dueBucket) {
		var record rotation.Record
		if err == nil {
			record, err = decodeRecord(it)
		}
		if err != nil {
			return nil, fmt.Errorf("listing the connections of table %s: %w", t.name, err)
		}
		records = append(records, record)
	}
	slices.SortFunc(records, func(a, b rotation.Record) int {
		return cmp.Compare(a.Connection.String(), b.Connection.String())
	})
	return records, nil
}

// History returns the latest events of a connection, at most limit, newest first.
func (t *Table) History(ctx context.Context, c token.Connection, limit int) ([]rotation.Event, error) {
	var events []rotation.Event
	past := expression.Key("sk").BeginsWith(eventSort)
	for it, err := range t.query(ctx, keysOf(c).And(past), strongly, newestFirst) {
		var row eventRow
		if err == nil {
			err = decode(it, &row)
		}
		if err != nil {
			return nil, fmt.Errorf("reading the history of %s from table %s: %w", c, t.name, err)
		}
		if len(events) >= limit {
			break
		}
		events = append(events, row.Event)
	}
	return events, nil
}

func newestFirst(in *dynamodb.QueryInput) { in.ScanIndexForward = aws.Bool(false) }

// Remove deletes the row of rec.Connection and its history if the row is still
// rec.Revision, and if there is no response. Otherwise rotation.ErrConflict. The row goes
// first, in one step. If the rest is interrupted, a repetition finishes it.
func (t *Table) Remove(ctx context.Context, rec rotation.Record) error {
	c := rec.Connection
	var past []types.TransactWriteItem
	for it, err := range t.query(ctx, keysOf(c), strongly) {
		if err != nil {
			return fmt.Errorf("reading the rows of %s from table %s: %w", c, t.name, err)
		}
		switch sort := text(it, "sk"); {
		case strings.HasPrefix(sort, responseSort), sort == ledgerSort && text(it, "revision") != rec.Revision:
			return fmt.Errorf("removing %s: %w", c, rotation.ErrConflict)
		case strings.HasPrefix(sort, eventSort):
			past = append(past, t.delete(key{text(it, "pk"), sort}))
		}
	}
	row := t.delete(connectionKey(c, ledgerSort))
	e, err := when(absent.Or(expression.Name("revision").Equal(expression.Value(rec.Revision))))
	if err != nil {
		return err
	}
	row.Delete.ConditionExpression, row.Delete.ExpressionAttributeNames = e.Condition(), e.Names()
	row.Delete.ExpressionAttributeValues = e.Values()
	err = t.transact(ctx, rand.Text(), []types.TransactWriteItem{row})
	if anyRefused(err) {
		return fmt.Errorf("removing %s: %w", c, rotation.ErrConflict)
	}
	for some := range slices.Chunk(past, maxActions) {
		if err == nil {
			err = t.transact(ctx, rand.Text(), some)
		}
	}
	if err != nil {
		return fmt.Errorf("removing %s from table %s: %w", c, t.name, err)
	}
	return nil
}

func (t *Table) delete(k key) types.TransactWriteItem {
	return types.TransactWriteItem{Delete: &types.Delete{TableName: &t.name, Key: k.item()}}
}
