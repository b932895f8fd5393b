package rotationtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// Calls counts calls, to find loops that spin (I14). Safe for concurrent use;
// the zero value has counted none.
type Calls struct {
	mu     sync.Mutex
	hourly map[inHour]int
	atOnce map[atOnce]int
	worst  atOnce // of calls that are no search
}

type inHour struct {
	call       string
	connection token.Connection
	hour       int64
}

type atOnce struct {
	actor, call string
	connection  token.Connection
	second      int64
}

// Gate counts and then asks g.
func (c *Calls) Gate(g Gate) Gate {
	return func(ctx context.Context, at Passage) Fault {
		if at.When == Before && at.Actor != "" {
			c.count(at)
		}
		if g == nil {
			return Fault{}
		}
		return g(ctx, at)
	}
}

func (c *Calls) count(at Passage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hourly == nil {
		c.hourly, c.atOnce = map[inHour]int{}, map[atOnce]int{}
	}
	now := time.Now()
	c.hourly[inHour{at.Call, at.Connection, now.Unix() / 3600}]++
	burst := atOnce{at.Actor, at.Call, at.Connection, now.Unix()}
	// a search calls secrets.Version for up to 100 versions
	if c.atOnce[burst]++; c.atOnce[burst] > c.atOnce[c.worst] && at.Call != "secrets.Version" {
		c.worst = burst
	}
}

// Most is the largest number of calls of one method within an hour, for one connection if
// the method has one.
func (c *Calls) Most(call string) (most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for at, n := range c.hourly {
		if at.call == call {
			most = max(most, n)
		}
	}
	return most
}

// Check is the part of I14 that says that no loop spins: no process makes the same call
// for a connection more than burst times within a second, and all processes together make
// it at most hourly times in an hour.
func (c *Calls) Check(burst, hourly int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	if n := c.atOnce[c.worst]; n > burst {
		errs = append(errs, fmt.Errorf("I14 is broken: %s makes %d calls of %s for %s within a second", c.worst.actor, n,
			c.worst.call, about(c.worst.connection)))
	}
	over := map[string]bool{}
	for at, n := range c.hourly {
		if n > hourly {
			over[fmt.Sprintf("%s for %s", at.call, about(at.connection))] = true
		}
	}
	for _, what := range slices.Sorted(maps.Keys(over)) {
		errs = append(errs, fmt.Errorf("I14 is broken: more than %d calls of %s within an hour", hourly, what))
	}
	return errors.Join(errs...)
}

func about(c token.Connection) string {
	if c.IsZero() {
		return "all"
	}
	return c.String()
}
