package dynamo_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/tokenturn/tokenturn/pkg/consent"
	"github.com/tokenturn/tokenturn/pkg/dynamo"
	"github.com/tokenturn/tokenturn/pkg/internal/awstest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var (
	acme  = token.Connection{Environment: "sandbox", Name: "acme"}
	noon  = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	key   = rotation.ResponseKey{Epoch: 1, Generation: 2, Attempt: "a"}
	minty = rotation.TokenResponse{Connection: acme, Key: key, State: rotation.Rejected, Reason: "wrong user", SavedAt: noon, Sealed: []byte("sealed")}
	whole = rotation.Change{Record: rotation.Record{Connection: acme, Revision: "old", DueAt: noon.Add(1)}, Mark: []rotation.TokenResponse{minty},
		Bury: []rotation.ResponseKey{key}, History: []rotation.Event{{At: noon, Kind: "rejected"}}}
	state = consent.State{Hash: "s", Invitation: "i", Cookie: "c", Environment: "sandbox", Connection: acme, CreatedAt: noon, ExpiresAt: noon.Add(time.Minute)}
)

func table(play func(awstest.Call) (any, error)) (*dynamo.Table, *awstest.Script) {
	script := awstest.Play(play)
	return dynamo.New(dynamodb.NewFromConfig(script.Config()), "tokens"), script
}

func nothing(awstest.Call) (any, error) { return nil, nil }

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
	if in := script.Calls()[1].Input; in["ConditionExpression"] != "attribute_not_exists (#0)" || at(in, "ExpressionAttributeNames", "#0") != "pk" || at(in, "Item", "due_bucket", "S") != "idle" {
		t.Errorf("a first row is put as %v", in)
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
	const responseSort = "MINT#0000000001#0000000002#a"
	for what, pair := range map[string][2]any{
		"row":           {at(actions, 0, "Put", "Item", "sk", "S"), "LEDGER"},
		"row's refusal": {at(actions, 0, "Put", "ReturnValuesOnConditionCheckFailure"), "ALL_OLD"},
		"marked":        {at(actions, 1, "Update", "Key", "sk", "S"), responseSort},
		"buried":        {at(actions, 2, "Delete", "Key", "sk", "S"), responseSort},
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

func TestChangeBeyondATransactionIsRefusedUnsent(t *testing.T) {
	tab, script := table(nothing)
	_, err := tab.Write(t.Context(), rotation.Change{Record: whole.Record, History: make([]rotation.Event, 100)})
	if err == nil || errors.Is(err, rotation.ErrConflict) || len(script.Calls()) != 0 {
		t.Errorf("got %v after %v", err, script.Operations())
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
		{"put, in a transaction", alone, func(string) error { return awstest.Fault{Code: "TransactionConflictException"} }, "conflict"},
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
		{"transaction, no such mint", whole, func(string) error { return cancelled(none, reason("ConditionalCheckFailed"), none, none) }, "conflict"},
		{"transaction, rival", whole, func(string) error { return cancelled(none, reason("TransactionConflict"), none, none) }, "conflict"},
		{"transaction, throttled", whole, func(string) error { return cancelled(none, none, reason("ThrottlingError"), none) }, "unknown"},
		{"transaction, invalid", whole, func(string) error { return cancelled(none, none, none, reason("ValidationError")) }, "unknown"},
		{"transaction, under way", whole, func(string) error { return awstest.Fault{Code: "TransactionInProgressException"} }, "unknown"},
	} {
		t.Run(test.what, func(t *testing.T) {
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

func TestResponseThatIsThereIsSaved(t *testing.T) {
	for code, saved := range map[string]bool{"ConditionalCheckFailedException": true, "ThrottlingException": false,
		"TransactionConflictException": false, "AccessDeniedException": false} {
		tab, script := table(func(awstest.Call) (any, error) { return nil, awstest.Fault{Code: code} })
		if err := tab.SaveResponse(t.Context(), minty); (err == nil) != saved {
			t.Errorf("%s: %v", code, err)
		}
		if in := script.Calls()[0].Input; in["ConditionExpression"] != "attribute_not_exists (#0)" {
			t.Errorf("asked for %v", in)
		}
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
			return map[string]any{"Items": []any{row("CONN#sandbox/b"), row("CONN#What is this")}, "LastEvaluatedKey": row("x")}, nil
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
// are. What moved meanwhile is listed once, and what DynamoDB left out is asked for again.
func TestListsReadNoHistories(t *testing.T) {
	const connections = 250
	place := func(i int) map[string]any {
		return map[string]any{"pk": map[string]any{"S": fmt.Sprintf("CONN#sandbox/c%03d", i)}, "sk": map[string]any{"S": "LEDGER"}}
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
		return map[string]any{"Items": []any{map[string]any{"pk": map[string]any{"S": "CONN#sandbox/acme"}, "sk": map[string]any{"S": "LEDGER"},
			"record": map[string]any{"M": map[string]any{"epoch": map[string]any{"S": "one"}}}}}}, nil
	})
	if _, _, err := tab.Load(t.Context(), acme); err == nil || !strings.Contains(err.Error(), "sandbox/acme") {
		t.Errorf("got %v", err)
	}
}

func TestStartAndConcludeOutlastARival(t *testing.T) {
	for what, call := range map[string]func(*dynamo.Table) error{
		"start":    func(tab *dynamo.Table) error { return tab.Start(t.Context(), state) },
		"conclude": func(tab *dynamo.Table) error { return tab.Conclude(t.Context(), state, "connected", true, noon) },
	} {
		asked := 0
		tab, script := table(func(awstest.Call) (any, error) {
			if asked++; asked == 1 {
				return nil, cancelled(reason("TransactionConflict"), reason("None"))
			}
			return nil, nil
		})
		if err := call(tab); err != nil || len(script.Calls()) != 2 {
			t.Errorf("%s: %v after %v", what, err, script.Operations())
		}
	}
}

func TestRefusedStarts(t *testing.T) {
	refusal := "ConditionalCheckFailed"
	for _, test := range []struct {
		what   string
		answer func(nonce string) error
		want   error
	}{
		{"no invitation", func(string) error { return cancelled(reason(refusal), reason("None")) }, consent.ErrNotFound},
		{"spent", func(string) error { return cancelled(reasonWith(refusal, there("x")), reason("None")) }, consent.ErrSpent},
		{"mine, and the last one", func(nonce string) error {
			return cancelled(reasonWith(refusal, there("x")), reasonWith(refusal, map[string]any{"nonce": map[string]any{"S": nonce}}))
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
	if _, err := tab.Consume(t.Context(), "s", "c", "sandbox", "", noon); !errors.Is(err, consent.ErrRefused) {
		t.Errorf("got %v, want ErrRefused", err)
	}
}

var bareName = regexp.MustCompile(`(^|[^#:\w.])[a-z]\w*`)

// DynamoDB reserves several hundred words, "state" and "ttl" among them.
func TestEveryNameInAnExpressionIsAliased(t *testing.T) {
	tab, script := table(nothing)
	ctx := t.Context()
	_, _, _ = tab.Load(ctx, acme)
	_, _ = tab.Due(ctx, noon)
	_, _ = tab.Write(ctx, whole)
	_ = tab.SaveResponse(ctx, minty)
	_, _ = tab.List(ctx)
	_, _ = tab.History(ctx, acme, 3)
	_ = tab.CreateInvitation(ctx, consent.Invitation{Hash: "i", Connection: acme, ExpiresAt: noon})
	_, _ = tab.Invitations(ctx, noon)
	_ = tab.RevokeInvitation(ctx, "i", noon)
	_ = tab.Start(ctx, state)
	_, _ = tab.Consume(ctx, "s", "c", "sandbox", "n", noon)
	_ = tab.Conclude(ctx, state, "connected", true, noon)
	seen := 0
	for _, call := range script.Calls() {
		for name, expression := range expressions(call.Input) {
			seen++
			for _, word := range bareName.FindAllString(expression, -1) {
				switch strings.Trim(word, " (") {
				case "attribute_exists", "attribute_not_exists", "if_not_exists", "begins_with":
				default:
					t.Errorf("%s of %s has the bare name %q: %s", name, call.Operation, word, expression)
				}
			}
		}
	}
	if seen < 15 {
		t.Errorf("only %d expressions were seen", seen)
	}
}

// expressions collects what is an expression at any depth of a request.
func expressions(of any) map[string]string {
	found := map[string]string{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, value := range v {
				if text, ok := value.(string); ok && strings.HasSuffix(name, "Expression") {
					found[path+"/"+name] = text
				}
				walk(path+"/"+name, value)
			}
		case []any:
			for i, value := range v {
				walk(fmt.Sprint(path, "/", i), value)
			}
		}
	}
	walk("", of)
	return found
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
