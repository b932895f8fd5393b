package rotationtest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// everyList is a world that only writes down which lists it was run with.
func everyList(seen map[string]int, lengths ...int) World {
	return func(c *Choices) error {
		var taken []int
		for _, n := range lengths {
			options := make([]int, n)
			for i := range options {
				options[i] = i
			}
			taken = append(taken, Pick(c, "a number", options))
		}
		seen[fmt.Sprint(taken)]++
		return nil
	}
}

func TestEveryListIsRunOnce(t *testing.T) {
	seen := map[string]int{}
	counts := Explore(t, Exploration{}, everyList(seen, 2, 3, 1, 4))
	if counts.Runs != 24 || len(seen) != 24 || !counts.Exhausted || counts.Choices != 3 {
		t.Errorf("%v, %d different lists", counts, len(seen))
	}
	clear(seen)
	if counts := Explore(t, Exploration{Runs: 5}, everyList(seen, 2, 3, 4)); counts.Runs != 5 || counts.Exhausted {
		t.Errorf("bounded: %v", counts)
	}
}

func TestRandomRunsFollowTheSeed(t *testing.T) {
	lists := func(seed uint64) map[string]int {
		seen := map[string]int{}
		Explore(t, Exploration{Runs: 1, Random: 50, Seed: seed, Rate: 0.5}, everyList(seen, 3, 3, 3, 3, 3, 3))
		return seen
	}
	if a, b := lists(7), lists(7); fmt.Sprint(a) != fmt.Sprint(b) {
		t.Error("one seed gave two sets of lists")
	}
	if a, b := lists(7), lists(8); fmt.Sprint(a) == fmt.Sprint(b) {
		t.Error("two seeds gave one set of lists")
	}
}

// transfer is a protocol of two writes that loses its message if it crashes
// between them: it clears the source before it fills the target. With
// careful it does so in the right order, and completes what it finds begun.
func transfer(careful bool, actors, faults, preemptions int) World {
	source, target := token.Connection{Environment: "a", Name: "source"}, token.Connection{Environment: "a",
		Name: "target"}
	set := func(ctx context.Context, l *Ledger, c token.Connection, text string) error {
		record, _, err := l.Load(ctx, c)
		if err != nil {
			return err
		}
		record.Published = text
		_, err = l.Write(ctx, rotation.Change{Record: record})
		return err
	}
	move := func(ctx context.Context, l *Ledger) {
		record, _, err := l.Load(ctx, source)
		if err != nil || record.Published == "" {
			return
		}
		first, second := source, target
		texts := map[token.Connection]string{target: record.Published}
		if careful {
			first, second = target, source
		}
		if set(ctx, l, first, texts[first]) == nil {
			_ = set(ctx, l, second, texts[second])
		}
	}
	return func(c *Choices) error {
		d := &Driver{Choices: c, Menu: AnyFault, Faults: faults, Preemptions: preemptions}
		l := &Ledger{Gate: d.Gate, Journal: &Journal{}}
		if err := set(context.Background(), l, source, "message"); err != nil {
			return err
		}
		for n := range actors {
			d.Go(fmt.Sprint("mover ", n), func(ctx context.Context) { move(ctx, l) })
		}
		if err := d.Run(); err != nil {
			return err
		}
		time.Sleep(time.Hour) // whatever is late has arrived
		d.Go("repair", func(ctx context.Context) { move(ctx, l) })
		d.Faults = 0
		if err := d.Run(); err != nil {
			return err
		}
		record, _, err := l.Load(context.Background(), target)
		if err == nil && record.Published != "message" {
			err = errors.New("the message is lost")
		}
		return err
	}
}

func TestSearchFindsAndShrinks(t *testing.T) {
	counts, found := Search(t, Exploration{}, transfer(false, 1, 2, 0))
	if found == nil {
		t.Fatalf("%v did not find the loss", counts)
	}
	if departures := len(found.List) - count(found.List, 0); departures != 1 {
		t.Errorf("the failing list was not shrunk to one fault: %v", found)
	}
	if !strings.Contains(found.Trace, "ledger.Write of a/source") && !strings.Contains(found.Trace, "of a/target") {
		t.Errorf("the story does not name the fault: %v", found)
	}
	again := &Choices{given: found.List}
	if err := run(t, transfer(false, 1, 2, 0), again); err == nil || err.Error() != found.Err.Error() {
		t.Errorf("replaying gives %v, the search found %v", err, found.Err)
	}
	t.Logf("%v; found %v", counts, found)

	_, found = Search(t, Exploration{Runs: 1, Random: 1000, Seed: 3}, transfer(false, 2, 3, 3))
	if found == nil || len(found.List)-count(found.List, 0) != 1 {
		t.Errorf("the random search found %v", found)
	}
}

func count(list []int, n int) (times int) {
	for _, is := range list {
		if is == n {
			times++
		}
	}
	return times
}

func TestSearchAcceptsWhatIsRight(t *testing.T) {
	t.Log("one mover, two faults: ", Explore(t, Exploration{}, transfer(true, 1, 2, 0)))
	t.Log("two movers, one fault, one switch: ", Explore(t, Exploration{}, transfer(true, 2, 1, 1)))
	Replay(t, transfer(true, 1, 1, 0), 0, 2, 1)
}

func TestSearchReports(t *testing.T) {
	for name, test := range map[string]struct {
		world World
		want  string
	}{
		"a panic":    {func(*Choices) error { panic("oops") }, "oops"},
		"a deadlock": {func(*Choices) error { <-make(chan int); return nil }, "deadlock"},
		"an actor's panic": {func(c *Choices) error { return actors(c, func(context.Context) { panic("oops") }) },
			"actor panicked: oops"},
		"an actor that hangs": {func(c *Choices) error { return actors(c, func(ctx context.Context) { <-ctx.Done() }) },
			"nothing has happened"},
		"an actor that spins": {func(c *Choices) error {
			return actors(c, func(ctx context.Context) {
				for NewSealer(); ; {
					Through(ctx, gateOf(ctx), "spin", token.Connection{}, func(bool) (int, error) { return 0, nil })
				}
			})
		}, "no end after"},
	} {
		t.Run(name, func(t *testing.T) {
			_, found := Search(t, Exploration{}, test.world)
			if found == nil || !strings.Contains(found.Err.Error(), test.want) {
				t.Errorf("found %v, want %q", found, test.want)
			}
		})
	}
}

type gateKey struct{}

func gateOf(ctx context.Context) Gate { return ctx.Value(gateKey{}).(Gate) }

func actors(c *Choices, act func(context.Context)) error {
	d := &Driver{Choices: c}
	d.Go("actor", func(ctx context.Context) { act(context.WithValue(ctx, gateKey{}, Gate(d.Gate))) })
	return d.Run()
}

func TestDriverInterleavesDeterministically(t *testing.T) {
	traces := map[string]bool{}
	world := func(c *Choices) error {
		d := &Driver{Choices: c, Preemptions: 2}
		j := &Journal{}
		f := &FollowUps{Gate: d.Gate, Journal: j}
		for _, name := range []string{"a", "b"} {
			d.Go(name, func(ctx context.Context) {
				for range 2 {
					_ = f.Send(ctx, rotation.Request{Op: "sweep"}, 0)
				}
			})
		}
		err := d.Run()
		var order strings.Builder
		for _, e := range j.Entries() {
			order.WriteString(e.Actor)
		}
		traces[order.String()] = true
		return err
	}
	first := Explore(t, Exploration{}, world)
	if len(traces) != 6 {
		t.Errorf("of the 6 orders of two times two effects, %d were tried: %v", len(traces), traces)
	}
	for range 3 {
		if again := Explore(t, Exploration{}, world); again != first {
			t.Errorf("first %v, then %v", first, again)
		}
	}
}

func TestCrashEndsTheWholeActor(t *testing.T) {
	Replay(t, func(c *Choices) error {
		crash := Nth(2, "ledger.Load", Before, Fault{Kind: Crash})
		d := &Driver{Choices: c, Script: crash}
		l := &Ledger{Gate: d.Gate, Journal: &Journal{}}
		var after []string
		d.Go("process", func(ctx context.Context) {
			done := make(chan struct{})
			go func() { // another goroutine of the same process
				defer close(done)
				_, _, _ = l.Load(ctx, acme)
				_, _, _ = l.Load(ctx, acme)
				after = append(after, "child")
			}()
			<-done
			_ = l.SaveResponse(ctx, response(1, 0, "a"))
			after = append(after, "parent")
		})
		d.Go("other", func(ctx context.Context) { _ = l.SaveResponse(ctx, response(1, 1, "b")) })
		if err := d.Run(); err != nil {
			return err
		}
		_, responses, _ := l.Load(context.Background(), acme)
		if !d.Crashed("process") || d.Crashed("other") || len(after) != 0 || len(responses) != 1 {
			return fmt.Errorf("crashed %t and %t, went on %v, %d responses", d.Crashed("process"), d.Crashed("other"), after,
				len(responses))
		}
		d.Go("process", func(ctx context.Context) { _ = l.SaveResponse(ctx, response(1, 0, "a")) }) // started again
		if err := d.Run(); err != nil {
			return err
		}
		if _, responses, _ = l.Load(context.Background(), acme); len(responses) != 2 {
			return fmt.Errorf("the process that was started again did not work: %d responses", len(responses))
		}
		return nil
	})
}

// Each fault of a gate, seen from the caller and from the store.
func TestFaults(t *testing.T) {
	for _, test := range []struct {
		when     Moment
		fault    Fault
		returns  bool // the caller's call
		ok       bool // without an error
		after    time.Duration
		effectAt time.Duration // -1: never
	}{
		{Before, Fault{}, true, true, 0, 0},
		{Before, Fault{Kind: Fail}, true, false, 0, -1},
		{Before, Fault{Kind: Throttle}, true, false, 0, -1},
		{Before, Fault{Kind: Crash}, false, false, 0, -1},
		{Before, Fault{Kind: Freeze, For: time.Minute}, true, false, time.Minute, -1}, // the context has ended by then
		{Before, Fault{Kind: Freeze, For: time.Second}, true, true, time.Second, time.Second},
		{Before, Fault{Kind: Slow, For: time.Second}, true, true, time.Second, time.Second},
		{Before, Fault{Kind: Slow, For: time.Minute}, true, false, 10 * time.Second, time.Minute},
		{Before, Fault{Kind: Late, For: time.Minute}, true, false, 0, time.Minute},
		{After, Fault{Kind: Fail}, true, false, 0, 0},
		{After, Fault{Kind: Crash}, false, false, 0, 0},
	} {
		t.Run(fmt.Sprint(test.when, " ", test.fault), func(t *testing.T) {
			Replay(t, func(c *Choices) error {
				d := &Driver{Choices: c, Script: Nth(1, "ledger.SaveResponse", test.when, test.fault)}
				j := &Journal{}
				l := &Ledger{Gate: d.Gate, Journal: j}
				start := time.Now()
				var got error
				took := time.Duration(-1)
				d.Go("writer", func(ctx context.Context) {
					ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
					defer cancel()
					got = l.SaveResponse(ctx, response(1, 0, "a"))
					took = time.Since(start)
				})
				if err := d.Run(); err != nil {
					return err
				}
				time.Sleep(time.Hour)
				effect := time.Duration(-1)
				for _, e := range j.Entries() {
					effect = e.At.Sub(start)
				}
				switch {
				case (took >= 0) != test.returns, test.returns && took != test.after, test.returns && (got == nil) != test.ok,
					effect != test.effectAt:
					return fmt.Errorf("returned after %v with %v, effect after %v", took, got, effect)
				}
				return nil
			})
		})
	}
}

func TestSmallerListsComeFirst(t *testing.T) {
	if less([]int{1}, []int{0, 1}) != true || less([]int{0, 0, 0, 1}, []int{1, 1}) != true || less([]int{2}, []int{1}) {
		t.Error("the order of failing lists is not: departures, length, size")
	}
	for _, list := range smaller([]int{0, 2, 1}) {
		if slices.Equal(list, []int{0, 2, 1}) {
			t.Error("a list is smaller than itself")
		}
	}
}

// Goroutines that a fault left behind must not outlive their bubble, nor be
// taken for stuck ones.
func TestNothingIsLeftBehind(t *testing.T) {
	Replay(t, func(c *Choices) error {
		d := &Driver{Choices: c, Script: Nth(1, "ledger.SaveResponse", Before, Fault{Kind: Late, For: time.Hour})}
		l := &Ledger{Gate: d.Gate}
		d.Go("writer", func(ctx context.Context) { _ = l.SaveResponse(ctx, response(1, 0, "a")) })
		return d.Run()
	})
	before := runtime.NumGoroutine()
	Explore(t, Exploration{Random: 200, Seed: 5, Rate: 0.3}, transfer(true, 2, 1, 0))
	if after := runtime.NumGoroutine(); after > before+2 {
		t.Errorf("%d goroutines before, %d after", before, after)
	}
}
