package dynamo_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/tokenturn/tokenturn/pkg/dynamo"
	"github.com/tokenturn/tokenturn/pkg/internal/awstest"
	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var (
	acme     = token.Connection{Environment: "sandbox", Name: "acme"}
	noon     = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	key      = rotation.ResponseKey{Epoch: 1, Generation: 2, Attempt: "a"}
	rejected = rotation.TokenResponse{Connection: acme, Key: key, State: rotation.Rejected, Reason: "wrong user",
		SavedAt: noon, Sealed: []byte("sealed")}
	whole = rotation.Change{Record: rotation.Record{Connection: acme, Revision: "old", DueAt: noon.Add(1)},
		Mark: []rotation.TokenResponse{rejected},
		Bury: []rotation.ResponseKey{{Epoch: 2, Attempt: "b"}}, History: []rotation.Event{{At: noon, Kind: "rejected"}}}
	state = invitations.State{Hash: "s", Invitation: "i", Cookie: "c", Environment: "sandbox", Connection: acme,
		CreatedAt: noon, ExpiresAt: noon.Add(time.Minute)}
)

func table(play func(awstest.Call) (any, error)) (*dynamo.Table, *awstest.Script) {
	script := awstest.Play(play)
	return dynamo.New(dynamodb.NewFromConfig(script.Config()), "tokens"), script
}

func nothing(awstest.Call) (any, error) { return nil, nil }

// inBubble runs a subtest in virtual time.
func inBubble(t *testing.T, what string, test func(t *testing.T)) {
	t.Run(what, func(t *testing.T) { synctest.Test(t, test) })
}

// at walks a decoded request: members by name, elements by number.
func at(from any, path ...any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := from.(map[string]any)
			from = m[step]
		case int:
			list, _ := from.([]any)
			if step >= len(list) {
				return nil
			}
			from = list[step]
		}
	}
	return from
}

func TestRecordAloneIsOnePut(t *testing.T) {
	tab, script := table(nothing)
	revision, err := tab.Write(t.Context(), rotation.Change{Record: whole.Record})
	if err != nil {
		t.Fatal(err)
	}
	in := script.Calls()[0].Input
	for what, pair := range map[string][2]any{
		"operation":  {script.Calls()[0].Operation, "PutItem"},
		"condition":  {in["ConditionExpression"], "#0 = :0"},
		"name":       {at(in, "ExpressionAttributeNames", "#0"), "revision"},
		"value":      {at(in, "ExpressionAttributeValues", ":0", "S"), "old"},
		"on refusal": {in["ReturnValuesOnConditionCheckFailure"], "ALL_OLD"},
		"revision":   {at(in, "Item", "revision", "S"), revision},
		"due":        {at(in, "Item", "due_at", "N"), fmt.Sprint(noon.Unix() + 1)},
		"bucket":     {at(in, "Item", "due_bucket", "S"), "due"},
		"connection": {at(in, "Item", "record", "M", "connection", "S"), "sandbox/acme"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: got %v, want %v", what, pair[0], pair[1])
		}
	}
	if _, err := tab.Write(t.Context(), rotation.Change{Record: rotation.Record{Connection: acme}}); err != nil {
		t.Fatal(err)
	}
	if in := script.Calls()[1].Input; in["ConditionExpression"] != "attribute_not_exists (#0)" ||
		at(in, "ExpressionAttributeNames", "#0") != "pk" || at(in, "Item", "due_bucket", "S") != "idle" {
		t.Errorf("a first row is put as %v", in)
	}
}

// DynamoDB deletes the row of a name to which nobody consented, and no other row.
func TestPendingRowsExpire(t *testing.T) {
	tab, script := table(nothing)
	for _, r := range []rotation.Record{
		{Status: rotation.Pending, InvitedUntil: noon},
		{Status: rotation.Pending},
		{Status: rotation.Pending, InvitedUntil: noon, DueAt: noon},
		{Status: rotation.Active, InvitedUntil: noon},
		{Status: rotation.NeedsConsent, InvitedUntil: noon},
		{Status: rotation.Disconnected, InvitedUntil: noon},
	} {
		r.Connection = acme
		if _, err := tab.Write(t.Context(), rotation.Change{Record: r}); err != nil {
			t.Fatal(err)
		}
	}
	var got []any
	for _, call := range script.Calls() {
		got = append(got, at(call.Input, "Item", "ttl", "N"))
	}
	if want := []any{fmt.Sprint(noon.AddDate(0, 0, 1).Unix()), nil, nil, nil, nil, nil}; !slices.Equal(got, want) {
		t.Errorf("ttl: %v, want %v", got, want)
	}
}

func TestWholeChangeIsOneTransaction(t *testing.T) {
	tab, script := table(nothing)
	revision, err := tab.Write(t.Context(), whole)
	if err != nil {
		t.Fatal(err)
	}
	in := script.Calls()[0].Input
	actions := at(in, "TransactItems").([]any)
	if len(script.Calls()) != 1 || len(actions) != 4 || in["ClientRequestToken"] != revision {
		t.Fatalf("asked for %v", script.Calls())
	}
	for what, pair := range map[string][2]any{
		"row":           {at(actions, 0, "Put", "Item", "sk", "S"), "LEDGER"},
		"row's refusal": {at(actions, 0, "Put", "ReturnValuesOnConditionCheckFailure"), "ALL_OLD"},
		"marked":        {at(actions, 1, "Update", "Key", "sk", "S"), "MINT#0000000001#0000000002#a"},
		"buried":        {at(actions, 2, "Delete", "Key", "sk", "S"), "MINT#0000000002#0000000000#b"},
		"kept until":    {at(actions, 3, "Put", "Item", "ttl", "N"), fmt.Sprint(noon.AddDate(0, 0, 90).Unix())},
		"event":         {at(actions, 3, "Put", "Item", "event", "M", "kind", "S"), "rejected"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: got %v, want %v", what, pair[0], pair[1])
		}
	}
	if text := fmt.Sprint(at(actions, 1)); strings.Contains(text, "c2VhbGVk") {
		t.Error("a mark sends the sealed bytes again")
	}
}

// numbered are responses of acme with different keys.
func numbered(n int) (responses []rotation.TokenResponse, keys []rotation.ResponseKey) {
	for i := range n {
		k := rotation.ResponseKey{Epoch: 1, Generation: int64(i), Attempt: "x"}
		responses, keys = append(responses, rotation.TokenResponse{Connection: acme, Key: k}), append(keys, k)
	}
	return responses, keys
}

// A transaction takes each item once: the same response found in two places of the
// secret store must not make the change impossible.
func TestResponseNamedTwiceIsOneAction(t *testing.T) {
	other := rejected
	other.Sealed = []byte("of the second place")
	tab, script := table(nothing)
	change := rotation.Change{Record: whole.Record, Copy: []rotation.TokenResponse{rejected, other, rejected},
		Bury: slices.Concat(whole.Bury, whole.Bury)}
	if _, err := tab.Write(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	actions := at(script.Calls()[0].Input, "TransactItems").([]any)
	if len(actions) != 3 || !strings.Contains(fmt.Sprint(actions[1]), base64.StdEncoding.EncodeToString(rejected.Sealed)) {
		t.Errorf("asked for %v", actions)
	}
}

// A change that is too large for a transaction is still made: all responses are appended,
// some of them before it, and responses that it cannot bury wait for another write.
func TestChangeBeyondATransaction(t *testing.T) {
	copies, _ := numbered(150)
	_, buried := numbered(300)
	mark, events := []rotation.TokenResponse{rejected}, whole.History
	for _, test := range []struct {
		what        string
		change      rotation.Change
		ahead, gone int
	}{
		{"many copies", rotation.Change{Copy: copies}, 51, 0},
		{"many to bury", rotation.Change{Bury: buried}, 0, 99},
		{"as much as fits", rotation.Change{Copy: copies[:40], Bury: buried[200:257], Mark: mark, History: events}, 0, 57},
		{"one more", rotation.Change{Copy: copies[:40], Bury: buried[200:258], Mark: mark, History: events}, 0, 57},
		{"many of all", rotation.Change{Copy: copies, Bury: buried[200:], Mark: mark, History: events}, 53, 0},
	} {
		tab, script := table(nothing)
		test.change.Record = whole.Record
		if _, err := tab.Write(t.Context(), test.change); err != nil {
			t.Errorf("%s: %v", test.what, err)
			continue
		}
		ahead, last := script.Calls()[:len(script.Calls())-1], script.Calls()[len(script.Calls())-1]
		appended, kinds := map[any]bool{}, map[string]int{}
		for _, call := range ahead {
			if got := described(call); !strings.HasSuffix(got[0], "if attribute_not_exists (pk)") {
				t.Errorf("%s: ahead of it comes %s", test.what, got)
			}
			appended[at(call.Input, "Item", "sk", "S")] = true
		}
		for _, action := range at(last.Input, "TransactItems").([]any) {
			for kind := range action.(map[string]any) {
				kinds[kind]++
			}
			if sort := at(action, "Update", "Key", "sk", "S"); sort != nil {
				appended[sort] = true
			}
		}
		whole := len(appended) == len(test.change.Copy)+len(test.change.Mark) && kinds["Put"] == 1+len(test.change.History)
		if !whole || len(ahead) != test.ahead || kinds["Delete"] != test.gone ||
			kinds["Put"]+kinds["Update"]+kinds["Delete"] > 100 {
			t.Errorf("%s: %d requests and a transaction of %v, which append or mark %d responses",
				test.what, len(ahead), kinds, len(appended))
		}
	}
}

// If a response before the change cannot be saved, the change is not made.
func TestChangeIsNotMadeWithoutWhatGoesAheadOfIt(t *testing.T) {
	copies, _ := numbered(101)
	tab, script := table(func(c awstest.Call) (any, error) { return nil, awstest.Fault{Code: "AccessDeniedException"} })
	_, err := tab.Write(t.Context(), rotation.Change{Record: whole.Record, Copy: copies})
	if err == nil || errors.Is(err, rotation.ErrConflict) || slices.Contains(script.Operations(), "TransactWriteItems") {
		t.Errorf("got %v after %v", err, script.Operations())
	}
}

func TestChangeOfMoreThanATransactionTakesIsRefusedUnsent(t *testing.T) {
	tab, script := table(nothing)
	_, err := tab.Write(t.Context(), rotation.Change{Record: whole.Record, History: make([]rotation.Event, 100)})
	if err == nil || errors.Is(err, rotation.ErrConflict) || len(script.Calls()) != 0 {
		t.Errorf("got %v after %v", err, script.Operations())
	}
}

var (
	transactions = map[string]func(context.Context, *dynamo.Table) error{
		"a change": func(ctx context.Context, tab *dynamo.Table) error { _, err := tab.Write(ctx, whole); return err },
		"a start":  func(ctx context.Context, tab *dynamo.Table) error { return tab.Start(ctx, state) },
		"an end": func(ctx context.Context, tab *dynamo.Table) error {
			return tab.Conclude(ctx, state, "connected", true, noon)
		},
	}
	singles = map[string]func(context.Context, *dynamo.Table) error{
		"a row": func(ctx context.Context, tab *dynamo.Table) error {
			_, err := tab.Write(ctx, rotation.Change{Record: whole.Record})
			return err
		},
		"a response": func(ctx context.Context, tab *dynamo.Table) error { return tab.SaveResponse(ctx, rejected) },
		"a claim": func(ctx context.Context, tab *dynamo.Table) error {
			_, err := tab.First(ctx, "e", noon, noon)
			return err
		},
	}
)

// A retry has the same token, so that a first attempt that did take effect is not made
// twice. After a failed condition there is no retry.
func TestTransientRefusalsAreRetried(t *testing.T) {
	none, refusal, conflict := reason("None"), reason("ConditionalCheckFailed"), reason("TransactionConflict")
	slow, full := reason("ThrottlingError"), reason("ProvisionedThroughputExceeded")
	for what, test := range map[string]struct {
		calls map[string]func(context.Context, *dynamo.Table) error
		fault error
		tries int
	}{
		"a rival":                       {transactions, cancelled(none, conflict), 2},
		"a throttle":                    {transactions, cancelled(none, slow), 2},
		"a partition that has too much": {transactions, cancelled(full, none), 2},
		"a rival and a throttle":        {transactions, cancelled(conflict, slow), 2},
		"a condition":                   {transactions, cancelled(refusal, none), 1},
		"a condition and a throttle":    {transactions, cancelled(slow, refusal), 1},
		"nonsense":                      {transactions, cancelled(none, reason("ValidationError")), 1},
		"a rival in a transaction":      {singles, awstest.Fault{Code: "TransactionConflictException"}, 2},
		"a throttle of single writes":   {singles, awstest.Fault{Code: "ProvisionedThroughputExceededException"}, 2},
		"no right":                      {singles, awstest.Fault{Code: "AccessDeniedException"}, 1},
	} {
		for of, call := range test.calls {
			inBubble(t, of+" meets "+what, func(t *testing.T) {
				asked := 0
				tab, script := table(func(awstest.Call) (any, error) {
					if asked++; asked == 1 {
						return nil, test.fault
					}
					return nil, nil
				})
				begun := time.Now()
				err := call(t.Context(), tab)
				if calls := script.Calls(); len(calls) != test.tries ||
					calls[0].Input["ClientRequestToken"] != calls[len(calls)-1].Input["ClientRequestToken"] {
					t.Errorf("asked for %v", calls)
				}
				if took := time.Since(begun); test.tries == 2 && err != nil || took > 200*time.Millisecond {
					t.Errorf("%v after %v", err, took)
				}
			})
		}
	}
}

// Retries end with the attempts of the client and with the caller's time. A throttle
// is no conflict: it says nothing about another writer.
func TestRetriesAreBounded(t *testing.T) {
	for code, conflict := range map[string]bool{
		"TransactionConflict": true, "ThrottlingError": false, "ProvisionedThroughputExceeded": false,
	} {
		inBubble(t, code, func(t *testing.T) {
			tab, script := table(func(awstest.Call) (any, error) { return nil, cancelled(reason("None"), reason(code)) })
			begun := time.Now()
			_, err := tab.Write(t.Context(), whole)
			took, requests := time.Since(begun), len(script.Calls())
			if err == nil || errors.Is(err, rotation.ErrConflict) != conflict || requests != 3 || took > 600*time.Millisecond {
				t.Errorf("%v after %v and %d requests", err, took, requests)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			begun = time.Now()
			_, err = tab.Write(ctx, whole)
			if took := time.Since(begun); err == nil || took > time.Millisecond {
				t.Errorf("%v after %v of a millisecond", err, took)
			}
		})
	}
}

// there is the item of a row as DynamoDB returns it with a refusal.
func there(revision string) map[string]any {
	return map[string]any{"revision": map[string]any{"S": revision}}
}

// cancelled is a transaction's refusal, with one reason for each action.
func cancelled(reasons ...map[string]any) error {
	return awstest.Fault{Code: "TransactionCanceledException", More: map[string]any{"CancellationReasons": reasons}}
}

func reason(code string) map[string]any { return map[string]any{"Code": code} }

func reasonWith(code string, item map[string]any) map[string]any {
	return map[string]any{"Code": code, "Item": item}
}

func TestRefusedWrites(t *testing.T) {
	conditional := func(item map[string]any) error {
		return awstest.Fault{Code: "ConditionalCheckFailedException", More: map[string]any{"Item": item}}
	}
	none := reason("None")
	alone := rotation.Change{Record: whole.Record}
	for _, test := range []struct {
		what   string
		change rotation.Change
		answer func(nonce string) error
		want   string // "mine", "conflict" or "unknown"
	}{
		{"put, another's row", alone, func(string) error { return conditional(there("another")) }, "conflict"},
		{"put, no row", alone, func(string) error { return conditional(nil) }, "conflict"},
		{"put, my row", alone, func(nonce string) error { return conditional(there(nonce)) }, "mine"},
		{"put, in a transaction", alone, func(string) error { return awstest.Fault{Code: "TransactionConflictException"} },
			"conflict"},
		{"put, throttled", alone, func(string) error { return awstest.Fault{Code: "ThrottlingException"} }, "unknown"},
		{"put, no right", alone, func(string) error { return awstest.Fault{Code: "AccessDeniedException"} }, "unknown"},
		{"put, no table", alone, func(string) error { return awstest.Fault{Code: "ResourceNotFoundException"} }, "unknown"},
		{"put, lost", alone, func(string) error { return errors.New("no network") }, "unknown"},
		{"transaction, another's row", whole, func(string) error {
			return cancelled(reasonWith("ConditionalCheckFailed", there("another")), none, none, none)
		}, "conflict"},
		{"transaction, my row", whole, func(nonce string) error {
			return cancelled(reasonWith("ConditionalCheckFailed", there(nonce)), reason("ConditionalCheckFailed"), none, none)
		}, "mine"},
		{"transaction, no such response", whole, func(string) error {
			return cancelled(none, reason("ConditionalCheckFailed"),
				none, none)
		}, "conflict"},
		{"transaction, rival", whole, func(string) error {
			return cancelled(none, reason("TransactionConflict"), none,
				none)
		}, "conflict"},
		{"transaction, throttled", whole, func(string) error {
			return cancelled(none, none, reason("ThrottlingError"),
				none)
		}, "unknown"},
		{"transaction, invalid", whole, func(string) error { return cancelled(none, none, none, reason("ValidationError")) },
			"unknown"},
		{"transaction, under way", whole, func(string) error { return awstest.Fault{Code: "TransactionInProgressException"} },
			"unknown"},
	} {
		inBubble(t, test.what, func(t *testing.T) {
			tab, _ := table(func(c awstest.Call) (any, error) {
				nonce := at(c.Input, "Item", "revision", "S")
				if nonce == nil {
					nonce = at(c.Input, "ClientRequestToken")
				}
				return nil, test.answer(nonce.(string))
			})
			revision, err := tab.Write(t.Context(), test.change)
			got := "unknown"
			switch {
			case err == nil:
				got = "mine"
			case errors.Is(err, rotation.ErrConflict):
				got = "conflict"
			}
			if got != test.want || (revision != "") != (got == "mine") {
				t.Errorf("got %s with revision %q, want %s: %v", got, revision, test.want, err)
			}
			if err != nil && !strings.Contains(err.Error(), "sandbox/acme") {
				t.Errorf("it does not say which connection: %v", err)
			}
		})
	}
}

// A removal deletes the row first, in one step, if the row is still the one that the caller
// judged and there is no response. What it does not delete then, a repetition deletes.
func TestRemove(t *testing.T) {
	rows := func(more map[string]any, sorts ...string) (items []any) {
		for _, sort := range sorts {
			it := map[string]any{"pk": map[string]any{"S": "CONN#sandbox/acme"}, "sk": map[string]any{"S": sort}}
			if sort == "LEDGER" {
				maps.Copy(it, more)
			}
			items = append(items, it)
		}
		return items
	}
	var years []string // of history
	for year := range 101 {
		years = append(years, fmt.Sprintf("HISTORY#%d", 2000+year))
	}
	const row = "Delete CONN#sandbox/acme LEDGER if (attribute_not_exists (pk)) OR (revision = 'old')"
	event := func(year int) string { return fmt.Sprintf("Delete CONN#sandbox/acme HISTORY#%d", year) }
	var hundred []string
	for year := range 100 {
		hundred = append(hundred, event(2000+year))
	}
	changed, denied := cancelled(reason("ConditionalCheckFailed")), awstest.Fault{Code: "AccessDeniedException"}
	for _, test := range []struct {
		what    string
		items   []any
		answers []error    // to the transactions; nil beyond
		want    [][]string // the transactions
		err     error      // ErrConflict, or denied for another one
	}{
		{"a row and its history", rows(there("old"), "HISTORY#2025", "HISTORY#2026", "LEDGER"), nil,
			[][]string{{row}, {event(2025), event(2026)}}, nil},
		{"a row without history", rows(there("old"), "LEDGER"), nil, [][]string{{row}}, nil},
		{"a long history", rows(there("old"), append(years, "LEDGER")...), nil,
			[][]string{{row}, hundred, {event(2100)}}, nil},
		{"nothing", nil, nil, [][]string{{row}}, nil},
		{"what an interrupted removal left", rows(nil, "HISTORY#2026"), nil, [][]string{{row}, {event(2026)}}, nil},
		{"another revision", rows(there("new"), "HISTORY#2026", "LEDGER"), nil, nil, rotation.ErrConflict},
		{"a row with a response", rows(there("old"), "HISTORY#2026", "LEDGER", "MINT#0000000001#0000000002#a"), nil, nil,
			rotation.ErrConflict},
		{"a response without a row", rows(nil, "MINT#0000000001#0000000002#a"), nil, nil, rotation.ErrConflict},
		{"a row that changes after it is read", rows(there("old"), "HISTORY#2026", "LEDGER"), []error{changed},
			[][]string{{row}}, rotation.ErrConflict},
		{"a row that may not be deleted", rows(there("old"), "HISTORY#2026", "LEDGER"), []error{denied},
			[][]string{{row}}, denied},
		{"an interruption", rows(there("old"), append(years, "LEDGER")...), []error{nil, denied},
			[][]string{{row}, hundred}, denied},
	} {
		var got [][]string
		tab, script := table(func(c awstest.Call) (any, error) {
			if c.Operation == "Query" {
				return map[string]any{"Items": test.items}, nil
			}
			got = append(got, described(c))
			if n := len(got); n <= len(test.answers) {
				return nil, test.answers[n-1]
			}
			return nil, nil
		})
		err := tab.Remove(t.Context(), rotation.Record{Connection: acme, Revision: "old"})
		if (err != nil) != (test.err != nil) || errors.Is(err, rotation.ErrConflict) != (test.err == rotation.ErrConflict) {
			t.Errorf("%s: got %v, want %v", test.what, err, test.err)
		}
		if !slices.EqualFunc(got, test.want, slices.Equal) {
			t.Errorf("%s: asked for\n%q\nwant\n%q", test.what, got, test.want)
		}
		read := script.Calls()[0].Input
		if where := spelled(read, "KeyConditionExpression"); where != "pk = 'CONN#sandbox/acme'" ||
			read["ConsistentRead"] != true {
			t.Errorf("%s: it is read where %s by %v", test.what, where, read)
		}
	}
}

func TestResponseThatIsThereIsSaved(t *testing.T) {
	for code, saved := range map[string]bool{"ConditionalCheckFailedException": true, "ThrottlingException": false,
		"TransactionConflictException": false, "AccessDeniedException": false} {
		inBubble(t, code, func(t *testing.T) {
			tab, _ := table(func(awstest.Call) (any, error) { return nil, awstest.Fault{Code: code} })
			if err := tab.SaveResponse(t.Context(), rejected); (err == nil) != saved {
				t.Error(err)
			}
		})
	}
}

func TestNothingDueIsOneQuery(t *testing.T) {
	tab, script := table(nothing)
	if due, err := tab.Due(t.Context(), noon); err != nil || len(due) != 0 {
		t.Errorf("got %v, %v", due, err)
	}
	calls := script.Calls()
	if len(calls) != 1 || calls[0].Operation != "Query" || calls[0].Input["IndexName"] != "due" {
		t.Errorf("asked for %v", calls)
	}
}

func TestDuePagesAndPassesOverWhatIsNotOurs(t *testing.T) {
	row := func(pk string) map[string]any { return map[string]any{"pk": map[string]any{"S": pk}} }
	tab, script := table(func(c awstest.Call) (any, error) {
		if c.Input["ExclusiveStartKey"] == nil {
			return map[string]any{"Items": []any{row("CONN#sandbox/b"), row("CONN#What is this")}, "LastEvaluatedKey": row("x")},
				nil
		}
		return map[string]any{"Items": []any{row("CONN#sandbox/a")}}, nil
	})
	due, err := tab.Due(t.Context(), noon)
	want := []token.Connection{{Environment: "sandbox", Name: "b"}, {Environment: "sandbox", Name: "a"}}
	if err != nil || !slices.Equal(due, want) || len(script.Calls()) != 2 {
		t.Errorf("got %v, %v after %v", due, err, script.Operations())
	}
}

// A list is pages of the index and batches of rows, however long the histories
// are. An item that moved meanwhile is listed once, and items that DynamoDB omitted are requested again.
func TestListsReadNoHistories(t *testing.T) {
	const connections = 250
	place := func(i int) map[string]any {
		return map[string]any{"pk": map[string]any{"S": fmt.Sprintf("CONN#sandbox/c%03d", i)},
			"sk": map[string]any{"S": "LEDGER"}}
	}
	leftOut := false
	tab, script := table(func(c awstest.Call) (any, error) {
		if c.Operation == "Query" {
			if at(c.Input, "ExpressionAttributeValues", ":0", "S") == "idle" {
				return map[string]any{"Items": []any{place(7)}}, nil
			}
			items := []any{}
			for i := range connections {
				items = append(items, place(i))
			}
			return map[string]any{"Items": items}, nil
		}
		keys := at(c.Input, "RequestItems", "tokens", "Keys").([]any)
		answer := map[string]any{}
		if !leftOut {
			leftOut = true
			answer["UnprocessedKeys"] = map[string]any{"tokens": map[string]any{"Keys": keys[90:]}}
			keys = keys[:90]
		}
		rows := []any{}
		for _, key := range keys {
			name := strings.TrimPrefix(at(key, "pk", "S").(string), "CONN#")
			rows = append(rows, map[string]any{"pk": at(key, "pk"), "sk": at(key, "sk"),
				"record": map[string]any{"M": map[string]any{"connection": map[string]any{"S": name}}}})
		}
		answer["Responses"] = map[string]any{"tokens": rows}
		return answer, nil
	})
	records, err := tab.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range records {
		if want := fmt.Sprintf("sandbox/c%03d", i); r.Connection.String() != want {
			t.Fatalf("number %d is %s, want %s", i, r.Connection, want)
		}
	}
	want := []string{"Query", "Query", "BatchGetItem", "BatchGetItem", "BatchGetItem", "BatchGetItem"}
	if got := script.Operations(); len(records) != connections || !slices.Equal(got, want) {
		t.Errorf("%d of %d connections are listed, by %v", len(records), connections, got)
	}
	if in := script.Calls()[2].Input; at(in, "RequestItems", "tokens", "ConsistentRead") != true {
		t.Errorf("rows are read as they may have been: %v", in)
	}
}

func TestUnreadableRowIsAnError(t *testing.T) {
	tab, _ := table(func(awstest.Call) (any, error) {
		return map[string]any{"Items": []any{map[string]any{"pk": map[string]any{"S": "CONN#sandbox/acme"},
			"sk":     map[string]any{"S": "LEDGER"},
			"record": map[string]any{"M": map[string]any{"epoch": map[string]any{"S": "one"}}}}}}, nil
	})
	if _, _, err := tab.Load(t.Context(), acme); err == nil || !strings.Contains(err.Error(), "sandbox/acme") {
		t.Errorf("got %v", err)
	}
}

func TestRefusedStarts(t *testing.T) {
	refusal := "ConditionalCheckFailed"
	for _, test := range []struct {
		what   string
		answer func(nonce string) error
		want   error
	}{
		{"no invitation", func(string) error { return cancelled(reason(refusal), reason("None")) }, invitations.ErrNotFound},
		{"spent", func(string) error { return cancelled(reasonWith(refusal, there("x")), reason("None")) },
			invitations.ErrSpent},
		{"mine, and the last one", func(nonce string) error {
			return cancelled(reasonWith(refusal, there("x")),
				reasonWith(refusal, map[string]any{"nonce": map[string]any{"S": nonce}}))
		}, nil},
	} {
		tab, _ := table(func(c awstest.Call) (any, error) { return nil, test.answer(c.Input["ClientRequestToken"].(string)) })
		if err := tab.Start(t.Context(), state); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.what, err, test.want)
		}
	}
}

func TestConsumeWithoutANonceIsNeverMine(t *testing.T) {
	tab, _ := table(func(awstest.Call) (any, error) {
		return nil, awstest.Fault{Code: "ConditionalCheckFailedException", More: map[string]any{"Item": there("x")}}
	})
	if _, err := tab.Consume(t.Context(), "s", "c", "sandbox", "", noon); !errors.Is(err, invitations.ErrRefused) {
		t.Errorf("got %v, want ErrRefused", err)
	}
}

func FuzzLoadReadsAnything(f *testing.F) {
	f.Add(`{"Items":[{"pk":{"S":"CONN#sandbox/acme"},"sk":{"S":"LEDGER"},"record":{"M":{"epoch":{"N":"1"}}}}]}`)
	f.Add(`{"Items":[{"sk":{"S":"MINT#1"},"mint":{"M":{"sealed":{"B":"AA=="},"key":{"S":"x"}}}}]}`)
	f.Add(`{"Items":[{"sk":{"S":"LEDGER"},"record":{"L":[{"NULL":true}]}}]}`)
	f.Fuzz(func(t *testing.T, answer string) {
		var output any
		if json.Unmarshal([]byte(answer), &output) != nil || at(output, "LastEvaluatedKey") != nil {
			return
		}
		tab, _ := table(func(awstest.Call) (any, error) { return output, nil })
		_, _, _ = tab.Load(t.Context(), acme)
	})
}
