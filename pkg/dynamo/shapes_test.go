package dynamo_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/dynamo"
	"github.com/tokenturn/tokenturn/pkg/internal/awstest"
	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
)

var alias = regexp.MustCompile(`[#:]\d+`)

// spelled is an expression of a request, or of an action in one, with names and values in
// place of its aliases.
func spelled(of any, expression string) string {
	text, _ := at(of, expression).(string)
	text = alias.ReplaceAllStringFunc(text, func(alias string) string {
		if name, ok := at(of, "ExpressionAttributeNames", alias).(string); ok {
			return name
		}
		value, _ := at(of, "ExpressionAttributeValues", alias).(map[string]any)
		for _, v := range value {
			if _, nested := v.(map[string]any); nested {
				return "{...}"
			}
			return fmt.Sprint("'", v, "'")
		}
		return alias
	})
	return strings.TrimSpace(text)
}

// describe puts one write, or one action of a transaction, into words.
func describe(action string, in any) string {
	keys := at(in, "Key")
	if keys == nil {
		keys = at(in, "Item")
	}
	text := fmt.Sprint(action, " ", at(keys, "pk", "S"), " ", at(keys, "sk", "S"))
	if set := spelled(in, "UpdateExpression"); set != "" {
		text += ": " + set
	}
	if only := spelled(in, "ConditionExpression"); only != "" {
		text += " if " + only
	}
	for moment, name := range map[time.Time]string{noon: "noon", noon.Add(time.Hour): "one"} {
		text = strings.NewReplacer(fmt.Sprint(moment.UnixNano()), name, fmt.Sprint(moment.Unix()), name,
			moment.Format(time.RFC3339Nano), name).Replace(text)
	}
	return regexp.MustCompile(`[A-Z2-7]{26}`).ReplaceAllString(text, "nonce")
}

// described returns the descriptions of all writes of a request.
func described(call awstest.Call) (all []string) {
	actions, _ := at(call.Input, "TransactItems").([]any)
	if actions == nil {
		return []string{describe(strings.TrimSuffix(call.Operation, "Item"), call.Input)}
	}
	for _, action := range actions {
		for kind, in := range action.(map[string]any) {
			all = append(all, describe(kind, in))
		}
	}
	return all
}

// Each write has its condition. Without any one of them, a write could overwrite an
// existing item or happen twice.
func TestWritesAreConditional(t *testing.T) {
	ctx := t.Context()
	write := func(change rotation.Change) func(*dynamo.Table) error {
		return func(tab *dynamo.Table) error { _, err := tab.Write(ctx, change); return err }
	}
	const response = "CONN#sandbox/acme MINT#0000000001#0000000002#a"
	const usable = "(attribute_not_exists (invitation.used_at)) AND (attribute_not_exists (invitation.revoked_at)) AND " +
		"(expires > 'noon') AND (invitation.starts < '5')"
	const ours = "(attribute_not_exists (state.consumed_at)) AND (expires > 'noon') AND (state.cookie = 'c') AND " +
		"(state.environment = 'sandbox')"
	for what, test := range map[string]struct {
		call func(*dynamo.Table) error
		want []string
	}{
		"the first row is put where there is none": {write(rotation.Change{Record: rotation.Record{Connection: acme}}),
			[]string{"Put CONN#sandbox/acme LEDGER if attribute_not_exists (pk)"}},
		"a row is put over its own revision": {write(rotation.Change{Record: whole.Record}),
			[]string{"Put CONN#sandbox/acme LEDGER if revision = 'old'"}},
		"a change compares the revision, marks what is there and overwrites no history": {write(whole), []string{
			"Put CONN#sandbox/acme LEDGER if revision = 'old'",
			"Update " + response + ": SET mint.state = 'rejected', mint.reason = 'wrong user' if attribute_exists (pk)",
			"Delete CONN#sandbox/acme MINT#0000000002#0000000000#b",
			"Put CONN#sandbox/acme HISTORY#2026-11-21T12:00:00.000000000Z#nonce#00 if attribute_not_exists (pk)"}},
		"the first change finds no row": {write(
			rotation.Change{Record: rotation.Record{Connection: acme}, History: whole.History},
		), []string{
			"Put CONN#sandbox/acme LEDGER if attribute_not_exists (pk)",
			"Put CONN#sandbox/acme HISTORY#2026-11-21T12:00:00.000000000Z#nonce#00 if attribute_not_exists (pk)"}},
		"a copy leaves a response as it is": {write(
			rotation.Change{Record: whole.Record, Copy: []rotation.TokenResponse{rejected}},
		), []string{
			"Put CONN#sandbox/acme LEDGER if revision = 'old'",
			"Update " + response + ": SET mint = if_not_exists(mint, {...})"}},
		"a response is saved where there is none": {func(tab *dynamo.Table) error { return tab.SaveResponse(ctx, rejected) },
			[]string{"Put " + response + " if attribute_not_exists (pk)"}},
		"an invitation is new": {func(tab *dynamo.Table) error {
			return tab.CreateInvitation(ctx, invitations.Invitation{Hash: "i", Connection: acme, ExpiresAt: noon})
		}, []string{"Put INVITE#i INVITE if attribute_not_exists (pk)"}},
		"an invitation is revoked once, and is there": {func(tab *dynamo.Table) error {
			return tab.RevokeInvitation(ctx, "i", noon)
		}, []string{"Update INVITE#i INVITE: SET invitation.revoked_at = if_not_exists(invitation.revoked_at, 'noon') " +
			"if attribute_exists (pk)"}},
		"a start needs a usable invitation and a new state": {func(tab *dynamo.Table) error {
			return tab.Start(ctx, state)
		}, []string{
			"Update INVITE#i INVITE: SET invitation.starts = invitation.starts + '1' if " + usable,
			"Put STATE#s STATE if attribute_not_exists (pk)"}},
		"a state is consumed once, in time, by its browser, for its environment": {func(tab *dynamo.Table) error {
			_, err := tab.Consume(ctx, "s", "c", "sandbox", "n", noon)
			return err
		}, []string{"Update STATE#s STATE: SET state.consumed_at = 'noon', consumed_by = 'n' if " + ours}},
		"a success uses the invitation up, once": {func(tab *dynamo.Table) error {
			return tab.Conclude(ctx, state, "connected", true, noon)
		}, []string{"Update STATE#s STATE: SET state.result = 'connected' if attribute_exists (pk)",
			"Update INVITE#i INVITE: SET invitation.used_at = if_not_exists(invitation.used_at, 'noon') " +
				"if attribute_exists (pk)"}},
		"a denial leaves the invitation alone": {func(tab *dynamo.Table) error {
			return tab.Conclude(ctx, state, "denied", false, noon)
		}, []string{"Update STATE#s STATE: SET state.result = 'denied' if attribute_exists (pk)"}},
		"a claim is made where none holds": {func(tab *dynamo.Table) error {
			_, err := tab.First(ctx, "e", noon, noon.Add(time.Hour))
			return err
		}, []string{"Update NOTICE#e NOTICE: SET expires = 'one', ttl = 'one', nonce = 'nonce' if " +
			"(attribute_not_exists (expires)) OR (expires <= 'noon')"}},
	} {
		tab, script := table(nothing)
		if err := test.call(tab); err != nil && !strings.Contains(err.Error(), "decod") {
			t.Errorf("%s: %v", what, err)
		}
		var got []string
		for _, call := range script.Calls() {
			got = append(got, described(call)...)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: asked for\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(test.want, "\n"))
		}
	}
}

// A refusal must return the existing item: without it, a repetition of the same write could
// not be distinguished from another writer's.
func TestRefusalsShowWhatIsThere(t *testing.T) {
	tab, script := table(nothing)
	ctx := t.Context()
	_, _ = tab.Write(ctx, rotation.Change{Record: whole.Record})
	_, _ = tab.Write(ctx, whole)
	_ = tab.CreateInvitation(ctx, invitations.Invitation{Hash: "i", Connection: acme, ExpiresAt: noon})
	_ = tab.Start(ctx, state)
	_, _ = tab.Consume(ctx, "s", "c", "sandbox", "n", noon)
	_, _ = tab.First(ctx, "e", noon, noon.Add(time.Hour))
	seen := 0
	var walk func(operation string, v any)
	walk = func(operation string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if v["ConditionExpression"] != nil {
				seen++
				if v["ReturnValuesOnConditionCheckFailure"] != "ALL_OLD" {
					t.Errorf("%s does not ask for what is there: %v", operation, v)
				}
			}
			for _, member := range v {
				walk(operation, member)
			}
		case []any:
			for _, element := range v {
				walk(operation, element)
			}
		}
	}
	for _, call := range script.Calls() {
		walk(call.Operation, call.Input)
	}
	if seen != 9 {
		t.Errorf("%d conditions were seen", seen)
	}
}

// A clock of the rate limiter only moves forward: from its present time, or to now.
func TestAReservationNeverMovesTheClockBack(t *testing.T) {
	tab, script := table(func(c awstest.Call) (any, error) {
		return nil, awstest.Fault{Code: "ConditionalCheckFailedException"}
	})
	if at, err := tab.Reserve(t.Context(), "sandbox", noon, time.Hour); err == nil {
		t.Errorf("reserved %v although every move was refused", at)
	}
	want := []string{"Update PACE#sandbox PACE: SET next = next + '3600000000000' if next >= 'noon'",
		"Update PACE#sandbox PACE: SET next = 'one' if (attribute_not_exists (next)) OR (next < 'noon')"}
	calls := script.Calls()
	if len(calls) != 6 { // three times both
		t.Fatalf("%d requests: %v", len(calls), calls)
	}
	for i, call := range calls {
		if got := described(call); !slices.Equal(got, want[i%2:i%2+1]) {
			t.Errorf("request %d is %q, want %q", i, got, want[i%2])
		}
	}
}

// Decisions need the present state, so each page is read strongly consistent, and from the
// table, because an index never is.
func TestLoadReadsEveryPageStronglyConsistent(t *testing.T) {
	pages := []string{
		`{"Items": [{"pk": {"S": "CONN#sandbox/acme"}, "sk": {"S": "LEDGER"}, "revision": {"S": "r"},
		"record": {"M": {"epoch": {"N": "7"}}}}],
		"LastEvaluatedKey": {"pk": {"S": "CONN#sandbox/acme"}, "sk": {"S": "LEDGER"}}}`,
		`{"Items": [{"pk": {"S": "CONN#sandbox/acme"}, "sk": {"S": "MINT#1"}, "mint": {"M": {"state": {"S": "saved"}}}}]}`,
	}
	tab, script := table(func(c awstest.Call) (any, error) {
		if c.Input["ExclusiveStartKey"] == nil {
			return json.RawMessage(pages[0]), nil
		}
		return json.RawMessage(pages[1]), nil
	})
	record, responses, err := tab.Load(t.Context(), acme)
	if err != nil || record.Revision != "r" || record.Epoch != 7 || len(responses) != 1 ||
		responses[0].State != rotation.Saved {
		t.Errorf("loaded %+v, %+v, %v", record, responses, err)
	}
	if made := script.Operations(); !slices.Equal(made, []string{"Query", "Query"}) {
		t.Fatalf("asked for %v", made)
	}
	for i, call := range script.Calls() {
		in, where := call.Input, spelled(call.Input, "KeyConditionExpression")
		const own = "(pk = 'CONN#sandbox/acme') AND (sk >= 'LEDGER')"
		if in["ConsistentRead"] != true || in["IndexName"] != nil || where != own {
			t.Errorf("page %d is read where %s by %v", i, where, in)
		}
	}
}

func TestOtherReadsAreStronglyConsistent(t *testing.T) {
	tab, script := table(nothing)
	_, _ = tab.History(t.Context(), acme, 3)
	_, _ = tab.Invitation(t.Context(), "i")
	_, _ = tab.State(t.Context(), "s")
	for _, call := range script.Calls() {
		if call.Input["ConsistentRead"] != true {
			t.Errorf("%s reads what may be over: %v", call.Operation, call.Input)
		}
	}
	if made := script.Operations(); !slices.Equal(made, []string{"Query", "GetItem", "GetItem"}) {
		t.Errorf("asked for %v", made)
	}
	if in := script.Calls()[0].Input; in["ScanIndexForward"] != false {
		t.Errorf("history is read from its beginning: %v", in)
	}
}

// Rows that expire have a TTL in seconds, as DynamoDB requires, after the time in which a
// visitor can see why a link no longer works.
func TestRowsThatExpireSayWhen(t *testing.T) {
	tab, script := table(nothing)
	_ = tab.CreateInvitation(t.Context(), invitations.Invitation{Hash: "i", Connection: acme, ExpiresAt: noon})
	_ = tab.Start(t.Context(), invitations.State{Hash: "s", Invitation: "i", Connection: acme, ExpiresAt: noon})
	want := fmt.Sprint(noon.AddDate(0, 0, 7).Unix())
	for i, item := range []any{script.Calls()[0].Input, at(script.Calls()[1].Input, "TransactItems", 1, "Put")} {
		if got := at(item, "Item", "ttl", "N"); got != want {
			t.Errorf("row %d expires at %v, want %s", i, got, want)
		}
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
	_ = tab.SaveResponse(ctx, rejected)
	_, _ = tab.List(ctx)
	_, _ = tab.History(ctx, acme, 3)
	_ = tab.CreateInvitation(ctx, invitations.Invitation{Hash: "i", Connection: acme, ExpiresAt: noon})
	_, _ = tab.Invitations(ctx, noon)
	_ = tab.RevokeInvitation(ctx, "i", noon)
	_ = tab.Start(ctx, state)
	_, _ = tab.Consume(ctx, "s", "c", "sandbox", "n", noon)
	_ = tab.Conclude(ctx, state, "connected", true, noon)
	_, _ = tab.Reserve(ctx, "sandbox", noon, time.Second)
	_, _ = tab.First(ctx, "e", noon, noon.Add(time.Hour))
	_, _ = tab.Write(ctx, rotation.Change{Record: whole.Record, Copy: []rotation.TokenResponse{rejected}})
	_ = tab.Remove(ctx, whole.Record)
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
	if seen < 31 {
		t.Errorf("only %d expressions were seen", seen)
	}
}

// expressions collects the expressions at any depth of a request.
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
