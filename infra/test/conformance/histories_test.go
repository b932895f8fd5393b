package conformance

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// generation is the place of generation n of the first epoch.
func generation(n int64) place { return place{string(rune('a' + n)), 1, n} }

// first creates the secret with generation 0, next moves the label to generation n from the one before.
var first = move{"", generation(0)}

func next(n int64) move { return move{generation(n - 1).Version, generation(n)} }

// of is a read of generation n; gives is a token source's.
func of(n int64) read      { return read{Seen: generation(n)} }
func looks(n int64) look   { return look{generation(n)} }
func gives(n int64) show   { return show{generation(n)} }
func lost(input any) ended { return ended{input, unknown} }

// ended is an input that did not simply succeed.
type ended struct {
	input any
	came  outcome
}

// oneByOne is a history in which each operation ends before the next one begins, but for
// those that have no end.
func oneByOne(inputs ...any) []porcupine.Operation {
	var history []porcupine.Operation
	for i, input := range inputs {
		history = append(history, between(int64(2*i), int64(2*i+1), input))
	}
	return history
}

// between is one operation.
func between(began, end int64, input any) porcupine.Operation {
	came := done
	if e, ok := input.(ended); ok {
		input, came = e.input, e.came
	}
	if came == unknown {
		end = open
	}
	return operation(0, input, came, began, end)
}

type histories map[string][]porcupine.Operation

func TestHistoriesOfALabelAreJudged(t *testing.T) {
	judgesRight(t, labelModel, histories{
		"reads beside a move see the old and the new version": append(oneByOne(first),
			between(2, 9, next(1)), between(3, 5, of(0)), between(4, 6, of(1)), between(7, 8, of(1))),
		"a lost move took effect late":     oneByOne(first, lost(next(1)), of(0), of(1), next(2), of(2)),
		"a lost move was repeated in time": oneByOne(first, lost(next(1)), of(0), next(1), next(2), of(2)),
		"a new epoch": oneByOne(first, next(1), move{generation(1).Version, place{"x", 2, 0}},
			read{Seen: place{"x", 2, 0}}),
	}, histories{
		"a read goes back beside a move": append(oneByOne(first),
			between(2, 9, next(1)), between(3, 4, of(1)), between(5, 6, of(0))),
		"a read goes back":              oneByOne(first, next(1), of(1), of(0)),
		"a read goes back to before":    oneByOne(first, lost(next(1)), of(1), of(0)),
		"a read sees a later move":      oneByOne(first, of(1), lost(next(1))),
		"a read sees what nobody wrote": oneByOne(first, of(1)),
		"a read sees a torn document":   oneByOne(first, read{generation(0), "torn"}),
		"a move goes back":              oneByOne(first, next(1), move{generation(1).Version, generation(0)}),
		"a move goes back an epoch":     oneByOne(move{"", place{"x", 2, 0}}, move{"x", generation(7)}),
		"a move to the same generation": oneByOne(first, move{generation(0).Version, place{"x", 1, 0}}),
		"two moves from one version":    oneByOne(first, next(1), move{generation(0).Version, generation(2)}),
		"a secret is created twice":     oneByOne(first, move{"", generation(1)}),
	})
}

func TestHistoriesOfATokenSourceAreJudged(t *testing.T) {
	judgesRight(t, sourceModel, histories{
		"it gives the old document while it reads": append(oneByOne(looks(0), gives(0)),
			between(4, 7, looks(1)), between(5, 6, gives(0)), between(8, 9, gives(1))),
		"it keeps the newer one of two": oneByOne(looks(1), looks(0), gives(1)),
		"it gives what it just reads":   {between(0, 4, looks(0)), between(1, 5, gives(0))},
	}, histories{
		"it goes back":                  oneByOne(looks(0), looks(1), gives(1), gives(0)),
		"it gives what it did not read": oneByOne(looks(0), gives(1)),
		"it gives what it reads later":  oneByOne(looks(0), gives(1), looks(1)),
	})
}

func TestHistoriesOfARefreshTokenAreJudged(t *testing.T) {
	a, b, c := begin{"A"}, begin{"B"}, begin{"C"}
	unseen, dead := ended{present{}, unspent}, ended{present{}, refused}
	judgesRight(t, tokenModel, histories{
		"presented once and saved":                            oneByOne(a, present{}, save{"A"}),
		"saved in both stores":                                oneByOne(a, present{}, save{"A"}, save{"A"}),
		"an answer is lost and the issuer grants":             oneByOne(a, lost(present{}), b, present{}, save{"B"}),
		"an answer is lost and the issuer refuses":            oneByOne(a, lost(present{}), b, dead, c, dead),
		"an answer without a known end is saved":              oneByOne(a, lost(present{}), save{"A"}),
		"the issuer asks to wait":                             oneByOne(a, unseen, b, present{}, save{"B"}),
		"an attempt is lost, and so is a save":                oneByOne(lost(a), b, present{}, lost(save{"B"})),
		"an answer is lost and the next one is not saved yet": oneByOne(a, lost(present{}), b, present{}),
		"the end of a presentation is not yet known":          oneByOne(a, lost(present{})),
	}, histories{
		"presented successfully twice": oneByOne(a, present{}, b, present{}),
		"presented twice at once": {between(0, 1, a), between(0, 1, b),
			between(2, 9, present{}), between(3, 8, present{})},
		"presented twice in one attempt":             oneByOne(a, lost(present{}), present{}),
		"presented without an attempt":               oneByOne(present{}),
		"presented again while an answer is saved":   oneByOne(a, present{}, save{"A"}, b, lost(present{})),
		"two answers are saved":                      oneByOne(a, lost(present{}), b, present{}, save{"B"}, save{"A"}),
		"an answer is saved without a presentation":  oneByOne(a, save{"A"}),
		"refused although it was never presented":    oneByOne(a, dead),
		"refused although the issuer did not see it": oneByOne(a, unseen, b, dead),
	})
}

func judgesRight(t *testing.T, model porcupine.Model, right, wrong histories) {
	t.Helper()
	for what, history := range right {
		if !porcupine.CheckOperations(model, history) {
			t.Errorf("%s: the history is called wrong", what)
		}
	}
	for what, history := range wrong {
		result, info := porcupine.CheckOperationsVerbose(model, history, 0)
		if result != porcupine.Illegal {
			t.Errorf("%s: the history is called right", what)
		} else if text := explain(history, info); !strings.Contains(text, "fits nowhere") {
			t.Errorf("%s: the explanation is %q", what, text)
		}
	}
}

// TestWrongHistoriesAreReduced leaves the one read that is wrong, and all that wrote.
func TestWrongHistoriesAreReduced(t *testing.T) {
	history := oneByOne(first, of(0), of(0), next(1), of(1), of(1), next(2), of(2), of(1), of(2), next(3), of(3))
	want := oneByOne(first, nil, nil, next(1), nil, nil, next(2), nil, of(1), nil, next(3), nil)
	want = slices.DeleteFunc(want, func(op porcupine.Operation) bool { return op.Input == nil })
	if got := reduce(labelModel, history); !slices.Equal(got, want) {
		t.Errorf("the history is reduced to %+v, want %+v", got, want)
	}
}

// TestReadersKnowAWholeDocument has a document of the connection, changed in the ways that a
// reader must not meet.
func TestReadersKnowAWholeDocument(t *testing.T) {
	document := func(name string) (value, id string) {
		c, err := token.ParseConnection("peer/" + name)
		if err != nil {
			t.Fatal(err)
		}
		encoded, err := token.Document{Connection: c, AccessToken: token.NewSecret("access"),
			ExpiresAt: time.Unix(1e9, 0), Epoch: 2, Generation: 3}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return encoded.Reveal(), token.VersionID(encoded)
	}
	value, id := document("acme")
	if got, want := readOf("peer/acme", id, value), (read{Seen: place{id, 2, 3}}); got != want {
		t.Errorf("a whole document is read as %+v, want %+v", got, want)
	}
	foreign, foreignID := document("globex")
	for what, r := range map[string]read{
		"torn":               readOf("peer/acme", id, value[:len(value)/2]),
		"mixed":              readOf("peer/acme", id, strings.Replace(value, `"generation":3`, `"generation":4`, 1)),
		"another connection": readOf("peer/acme", foreignID, foreign),
		"empty":              readOf("peer/acme", id, ""),
	} {
		if r.Problem == "" || porcupine.CheckOperations(labelModel, oneByOne(move{"", r.Seen}, r)) {
			t.Errorf("%s: is taken for a whole document of the connection: %+v", what, r)
		}
	}
}
