package dynamo

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var (
	acme = token.Connection{Environment: "sandbox", Name: "acme"}
	at   = time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)
)

func TestKeysSortAsTheLoadExpects(t *testing.T) {
	response := func(epoch, generation int64) string {
		return responseKey(acme, rotation.ResponseKey{Epoch: epoch, Generation: generation, Attempt: "a"}).SK
	}
	ordered := []string{
		eventKey(acme, at, "N", 0).SK,
		eventKey(acme, at.Add(1), "A", 0).SK,
		eventKey(acme, at.Add(1), "A", 1).SK,
		eventKey(acme, at.Add(1), "A", 10).SK,
		eventKey(acme, at.Add(time.Second).In(time.FixedZone("west", -7*3600)), "A", 0).SK,
		ledgerSort, response(1, 2), response(1, 10), response(2, 0), response(10, 0),
	}
	if !slices.IsSorted(ordered) {
		t.Errorf("not in order: %q", ordered)
	}
}

func TestKeysAreThoseOfTheDesign(t *testing.T) {
	for want, got := range map[key]key{
		{"CONN#sandbox/acme", "LEDGER"}: connectionKey(acme, ledgerSort),
		{"CONN#sandbox/acme", "MINT#0000000001#0000000012#a1"}: responseKey(acme,
			rotation.ResponseKey{Epoch: 1, Generation: 12, Attempt: "a1"}),
		{"CONN#sandbox/acme", "HISTORY#2026-11-21T22:00:00.000000000Z#N#03"}: eventKey(acme, at, "N", 3),
		{"INVITE#ab", "INVITE"}: inviteKey("ab"),
		{"STATE#cd", "STATE"}:   stateKey("cd"),
	} {
		if got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	if c, err := connectionOf(connectionKey(acme, "").PK); err != nil || c != acme {
		t.Errorf("read back as %v, %v", c, err)
	}
}

func TestRowsSurviveEncoding(t *testing.T) {
	rows := []any{
		&ledgerRow{key: key{"p", "s"}, listed: listed{dueBucket, 5}, Revision: "r", Record: rotation.Record{Connection: acme,
			Epoch: 2, Generation: 1 << 40, Status: rotation.Active, Current: &rotation.Current{Fingerprint: "f", SavedAt: at},
			DueAt: at.Add(time.Millisecond), Puts: []int64{1, 2}, Failures: []rotation.Failure{{Step: rotation.Publish,
				NextAt: at}}}},
		&responseRow{key{"p", "s"}, rotation.TokenResponse{Connection: acme, Sealed: []byte{0, 255}, SavedAt: at,
			Expect: &rotation.Identity{Company: "34", Repin: true}}},
		&eventRow{key{"p", "s"}, 7, rotation.Event{At: at, Kind: "decided", Detail: "d"}},
		&stateRow{expiring: newExpiring(key{"p", "s"}, "n", at), State: invitations.State{Connection: acme, CreatedAt: at}},
	}
	for _, row := range rows {
		it, err := encode(row)
		if err != nil {
			t.Fatal(err)
		}
		back := reflect.New(reflect.TypeOf(row).Elem()).Interface()
		if err := decode(it, back); err != nil || !reflect.DeepEqual(back, row) {
			t.Errorf("got %+v, %v\nwant %+v", back, err, row)
		}
		if text(it, "pk") != "p" || text(it, "sk") != "s" {
			t.Errorf("the keys are not where the table has them: %v", it)
		}
	}
}

// The conditions ask for the absence of these attributes.
func TestZeroTimesAreLeftOut(t *testing.T) {
	it, err := encode(stateRow{expiring: newExpiring(key{}, "n", at)})
	if err != nil {
		t.Fatal(err)
	}
	state := it["state"].(*types.AttributeValueMemberM).Value
	if _, there := state["consumed_at"]; there || state["environment"] == nil {
		t.Errorf("the state is %v", state)
	}
	for name, value := range state {
		if s, ok := value.(*types.AttributeValueMemberS); ok && strings.HasPrefix(s.Value, "0001") {
			t.Errorf("%s is %s", name, s.Value)
		}
	}
}

func TestNothingIsListedBeforeItsTime(t *testing.T) {
	for due, want := range map[time.Time]int64{at: at.Unix(), at.Add(1): at.Unix() + 1,
		at.Add(time.Second - 1): at.Unix() + 1} {
		if got := ceilUnix(due); got != want {
			t.Errorf("%v became %d, want %d", due, got, want)
		}
	}
}
