package rotationtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Choices is the list of small integers that determines one run of a world. A world asks
// Pick for everything that it leaves open. The first option of each choice should be the
// ordinary one, because a short list takes the first option of all further choices.
type Choices struct {
	given  []int      // taken first
	random *rand.Rand // then, if set, random with a seed; else always the first option
	rate   float64    // how often a random choice is not the first option
	taken  []choice
}

type choice struct {
	what, option any // kept unformatted, because nearly no run is ever printed
	of, is       int
}

// Pick returns one of the options and remembers which. With a single option
// there is no choice; nil Choices always take the first.
func Pick[T any](c *Choices, what any, options []T) T {
	if c == nil || len(options) == 1 {
		return options[0]
	}
	is := c.next(len(options))
	c.taken = append(c.taken, choice{what, options[is], len(options), is})
	return options[is]
}

func (c *Choices) next(of int) int {
	switch i := len(c.taken); {
	case i < len(c.given):
		return min(c.given[i], of-1)
	case c.random != nil && c.random.Float64() < c.rate:
		return 1 + c.random.IntN(of-1)
	}
	return 0
}

// list is what was chosen, without trailing zeros.
func (c *Choices) list() []int {
	var list []int
	for _, t := range c.taken {
		list = append(list, t.is)
	}
	return trim(list)
}

func trim(list []int) []int {
	for len(list) > 0 && list[len(list)-1] == 0 {
		list = list[:len(list)-1]
	}
	return list
}

// String lists every choice that was not the first option.
func (c *Choices) String() string {
	var b strings.Builder
	for i, t := range c.taken {
		if t.is != 0 {
			fmt.Fprintf(&b, "%4d  %v: %v\n", i, t.what, t.option)
		}
	}
	return b.String()
}

// World is one run from a fresh start. It must depend on nothing but its
// choices and report every fault as an error. It runs in a synctest bubble.
type World func(c *Choices) error

// Exploration says how much of a world's tree of choices to try.
type Exploration struct {
	Runs   int     // at most so many, depth first; 0: the whole tree
	Random int     // then so many at random
	Seed   uint64  // of the random runs
	Rate   float64 // how often they do not take the first option; 0: one choice in ten
}

// Counts says what was tried.
type Counts struct {
	Runs      int
	Choices   int  // in the longest run
	Exhausted bool // the whole tree was tried
}

func (c Counts) String() string {
	whole := "a part of"
	if c.Exhausted {
		whole = "all of"
	}
	return fmt.Sprintf("%d runs, %s the tree, at most %d choices each", c.Runs, whole, c.Choices)
}

// Counterexample is the shortest failing run that was found.
type Counterexample struct {
	List  []int // for Replay
	Trace string
	Err   error
}

func (e *Counterexample) String() string {
	return fmt.Sprintf("choices %#v\n%s%v", e.List, e.Trace, e.Err)
}

// Explore tries the world and fails the test with the shortest failing list.
func Explore(t *testing.T, e Exploration, world World) Counts {
	t.Helper()
	counts, found := Search(t, e, world)
	if found != nil {
		t.Fatalf("after %v (seed %d) the world fails with %v", counts, e.Seed, found)
	}
	return counts
}

// Replay runs the world with one list of choices, such as one that failed once.
func Replay(t *testing.T, world World, list ...int) {
	t.Helper()
	c := &Choices{given: list}
	if err := run(t, world, c); err != nil {
		t.Fatalf("the world fails with choices %#v\n%s%v", list, c, err)
	}
}

// Search is Explore for tests that expect a failure. It returns nil if there is none.
func Search(t *testing.T, e Exploration, world World) (Counts, *Counterexample) {
	t.Helper()
	var counts Counts
	try := func(c *Choices) error {
		err := run(t, world, c)
		counts.Runs++
		counts.Choices = max(counts.Choices, len(c.taken))
		return err
	}

	// Depth first: a prefix leads to the run that follows it and then always
	// takes the first option; each other option beyond the prefix is a new
	// prefix. So every list is run exactly once.
	todo := [][]int{nil}
	for len(todo) > 0 && (e.Runs == 0 || counts.Runs < e.Runs) {
		prefix := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		c := &Choices{given: prefix}
		if err := try(c); err != nil {
			return counts, shrink(t, world, c, err)
		}
		if len(c.taken) < len(prefix) || !slices.Equal(c.list(), trim(prefix)) {
			return counts, &Counterexample{prefix, c.String(),
				fmt.Errorf("the world does not follow its choices: it took %v", c.list())}
		}
		for i := len(prefix); i < len(c.taken); i++ {
			for is := c.taken[i].of - 1; is > 0; is-- {
				next := make([]int, i+1) // the prefix, zeros, and the other option
				copy(next, prefix)
				next[i] = is
				todo = append(todo, next)
			}
		}
	}
	counts.Exhausted = len(todo) == 0

	if e.Rate == 0 {
		e.Rate = 0.1
	}
	for n := range e.Random {
		c := &Choices{random: rand.New(rand.NewPCG(e.Seed, uint64(n))), rate: e.Rate}
		if err := try(c); err != nil {
			return counts, shrink(t, world, c, err)
		}
	}
	return counts, nil
}

// maxShrinks bounds the runs that go into making a failing list short.
const maxShrinks = 2000

// shrink looks for a shorter or smaller list that fails too: first among the lists with one
// choice that is not the first option, then by leaving out or lowering one choice after the
// other until that gives no better list.
func shrink(t *testing.T, world World, failing *Choices, err error) *Counterexample {
	best, left := failing, maxShrinks
	improve := func(candidates [][]int) bool {
		for _, list := range candidates {
			if left--; left < 0 {
				return false
			}
			c := &Choices{given: list}
			failed := run(t, world, c)
			if failed != nil && less(c.list(), best.list()) {
				best, err = c, failed
				return true
			}
		}
		return false
	}
	ordinary := &Choices{}
	_ = run(t, world, ordinary)
	improve(oneDeparture(ordinary))
	for improve(smaller(best.list())) {
	}
	return &Counterexample{best.list(), best.String(), err}
}

// oneDeparture lists the runs in which one choice is not the first option.
func oneDeparture(c *Choices) (lists [][]int) {
	for i, t := range c.taken {
		for is := 1; is < t.of; is++ {
			list := make([]int, i+1)
			list[i] = is
			lists = append(lists, list)
		}
	}
	return lists
}

// smaller lists candidates, the boldest first.
func smaller(list []int) (candidates [][]int) {
	for i := range list {
		candidates = append(candidates, trim(slices.Clone(list[:i])))
	}
	for i, is := range list {
		candidates = append(candidates, slices.Delete(slices.Clone(list), i, i+1))
		for lower := range is {
			next := slices.Clone(list)
			next[i] = lower
			candidates = append(candidates, trim(next))
		}
	}
	return candidates
}

// less prefers few departures from the ordinary, then short lists, then small ones.
func less(a, b []int) bool {
	departures := func(list []int) (n int) {
		for _, is := range list {
			if is != 0 {
				n++
			}
		}
		return n
	}
	if da, db := departures(a), departures(b); da != db {
		return da < db
	}
	if len(a) != len(b) {
		return len(a) < len(b)
	}
	return slices.Compare(a, b) < 0
}

// afterlife is the time that a world's goroutines have after it has returned. Late and slow
// ones end in that time; a stuck one is reported as a deadlock.
const afterlife = 24 * time.Hour

// run gives the world a bubble of its own. A panic or a deadlock is a failure
// of the world like any other.
func run(t *testing.T, world World, c *Choices) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	synctest.Test(t, func(*testing.T) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
		}()
		err = world(c)
		time.Sleep(afterlife)
	})
	return err
}
