package conformance

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// The three models against which recorded histories are judged. A history is right if each
// of its operations can have happened at one moment between its begin and its end, so that
// their sequence is one that the model allows. No clock but the order of begins and ends counts.
//
// An operation with an unknown outcome has no end: it may have happened late, or never.

// open is the end of an operation that nobody saw ending.
const open = math.MaxInt64

// outcome is what came of an operation, as far as its caller knows.
type outcome string

const (
	done    outcome = "done"
	unknown outcome = "unknown"
	// Of presentations only.
	refused outcome = "refused" // the issuer calls the token spent
	unspent outcome = "unspent" // the issuer did not see the token, or answered that it did nothing
)

// place is where a secret's version is in the order of rotations.
type place struct {
	Version           string // id of the secret's version
	Epoch, Generation int64
}

func (p place) before(q place) bool {
	return cmp.Or(cmp.Compare(p.Epoch, q.Epoch), cmp.Compare(p.Generation, q.Generation)) < 0
}

func (p place) String() string { return fmt.Sprintf("(%d, %d)", p.Epoch, p.Generation) }

// read is one look at a connection's secret by its label AWSCURRENT.
type read struct {
	Seen    place
	Problem string // why it is not a whole document of the connection
}

// readOf judges what a reader was given. A version's id comes from its bytes, so that of a
// torn document differs.
func readOf(connection, id, value string) read {
	document, err := token.ParseDocument(token.NewSecret(value))
	r := read{Seen: place{id, document.Epoch, document.Generation}}
	switch {
	case err != nil:
		r.Problem = err.Error()
	case token.VersionID(token.NewSecret(value)) != id:
		r.Problem = "the version's id is not that of its bytes"
	case document.Connection.String() != connection:
		r.Problem = "it is a document of " + document.Connection.String()
	}
	return r
}

// move puts AWSCURRENT on another version, or creates the secret with its first one.
type move struct {
	From string // the version that must have the label; empty: there must be no secret
	To   place
}

// labelModel is one secret as its readers see it: a register that functions write and that
// never goes back. The store compares From, so a move that finds another version does nothing.
var labelModel = porcupine.Model{
	Init: func() any { return place{} },
	Step: func(state, input, output any) (bool, any) {
		now := state.(place)
		switch in := input.(type) {
		case read:
			return in.Problem == "" && in.Seen == now, now
		case move:
			takes := in.From == now.Version && now.before(in.To)
			if takes {
				return true, in.To
			}
			return output == unknown, now
		}
		panic("not an operation on a label")
	},
	DescribeOperation: describe,
	DescribeState:     func(state any) string { return state.(place).String() },
}

// look is a read that a token source made, show what it then gave to its program.
type (
	look struct{ Seen place }
	show struct{ Given place }
)

// sourceState is what a token source has given to its program, and the newest that it has read.
type sourceState struct{ Given, Newest place }

// sourceModel is one token source, which reads now and then: it gives only what it has read,
// and after one document never an earlier one.
var sourceModel = porcupine.Model{
	Init: func() any { return sourceState{} },
	Step: func(state, input, _ any) (bool, any) {
		s := state.(sourceState)
		switch in := input.(type) {
		case look:
			if s.Newest.before(in.Seen) {
				s.Newest = in.Seen
			}
			return true, s
		case show:
			if in.Given.before(s.Given) || s.Newest.before(in.Given) {
				return false, s
			}
			s.Given = in.Given
			return true, s
		}
		panic("not an operation of a token source")
	},
	DescribeOperation: describe,
	DescribeState: func(state any) string {
		s := state.(sourceState)
		return fmt.Sprintf("gave %v, has read %v", s.Given, s.Newest)
	},
}

// What functions do with one refresh token.
type (
	begin   struct{ Attempt string } // the right to present the token once
	present struct{}                 // to the issuer
	save    struct{ Attempt string } // the answer, in either store
)

// tokenState is a refresh token as the functions know it.
type tokenState struct {
	Ready bool   // an attempt has begun that did not present the token yet
	Spent bool   // a presentation succeeded
	Saved string // the attempt; its answer is in a store
}

// tokenModel is one refresh token: presented once for each attempt, successfully once, and never
// while an answer to it is saved. An answer that was lost leaves open what became of the token.
// All answers must be sound: one that has to be rejected would be followed by another presentation.
var tokenModel = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{tokenState{}} },
	Step: func(state, input, output any) []any {
		now := state.(tokenState)
		switch in := input.(type) {
		case begin:
			now.Ready = true
			return []any{now}
		case save:
			if !now.Spent || now.Saved != "" && now.Saved != in.Attempt {
				return nil
			}
			now.Saved = in.Attempt
			return []any{now}
		case present:
			return presented(now, output.(outcome))
		}
		panic("not an operation on a refresh token")
	},
	DescribeOperation: describe,
	DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
}).ToModel()

// presented gives what may be so after a presentation; nothing if it must not happen.
func presented(now tokenState, came outcome) []any {
	if !now.Ready || now.Saved != "" {
		return nil
	}
	now.Ready = false
	spent := now
	spent.Spent = true
	switch {
	case came == unspent:
		return []any{now}
	case came == done && !now.Spent:
		return []any{spent}
	case came == refused && now.Spent:
		return []any{now}
	case came == unknown:
		return []any{now, spent}
	}
	return nil
}

func describe(input, output any) string {
	return fmt.Sprintf("%s %+v: %s", strings.TrimPrefix(fmt.Sprintf("%T", input), "conformance."), input, output)
}

// operation is one element of a history.
func operation(client int, input any, came outcome, began, ended int64) porcupine.Operation {
	return porcupine.Operation{ClientId: client, Input: input, Output: came, Call: began, Return: ended}
}

// explain names the operation at which the search for a right sequence ended: of all that
// the longest right beginning leaves out, the one that ended first.
func explain(history []porcupine.Operation, info porcupine.LinearizationInfo) string {
	var longest []porcupine.Operation
	for _, partial := range info.PartialLinearizationsOperations()[0] {
		if len(partial) > len(longest) {
			longest = partial
		}
	}
	type interval struct{ call, end int64 }
	placed := map[interval]bool{}
	for _, op := range longest {
		placed[interval{op.Call, op.Return}] = true
	}
	left := slices.DeleteFunc(slices.Clone(history), func(op porcupine.Operation) bool {
		return placed[interval{op.Call, op.Return}]
	})
	if len(left) == 0 {
		return "no operation is left"
	}
	first := slices.MinFunc(left, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	return fmt.Sprintf("after %d operations in a right order, this one of client %d fits nowhere: %s",
		len(longest), first.ClientId, describe(first.Input, first.Output))
}

// reduce leaves out what only looks on, as long as the history stays wrong. A right history
// stays right without it, so what is wrong in the rest is wrong in the whole.
func reduce(model porcupine.Model, history []porcupine.Operation) []porcupine.Operation {
	for size := len(history); size > 0; size /= 2 {
		for from := 0; from < len(history); {
			n := 0
			shorter := slices.DeleteFunc(slices.Clone(history), func(op porcupine.Operation) bool {
				n++
				return from < n && n <= from+size && looksOn(op)
			})
			if len(shorter) < len(history) && !porcupine.CheckOperations(model, shorter) {
				history = shorter
			} else {
				from += size
			}
		}
	}
	return history
}

func looksOn(op porcupine.Operation) bool {
	switch op.Input.(type) {
	case read, show:
		return true
	}
	return false
}
