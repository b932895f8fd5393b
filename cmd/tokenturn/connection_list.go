package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// listing is what the flags of `connection list` choose.
type listing struct {
	all         bool
	environment string
	statuses    []string
	sort        string
	watch       bool
}

// statuses and sortings are the values of the flags.
var (
	statuses = []string{string(rotation.Pending), string(rotation.Active), string(rotation.NeedsConsent),
		string(rotation.Disconnected)}
	sortings = []string{"name", "status", "expires", "rotated", "due"}
)

func (c *cli) connectionList() *cobra.Command {
	var wanted listing
	cmd := verb("list", "List the connections",
		`Leaves out the connections that nobody uses, and says how many there are: the
disconnected ones, and those to which nobody consented before the last invitation
expired or was revoked. With --all, --status or --json they are listed too. "tokenturn connection forget"
deletes one.

A narrow terminal shows fewer columns; "tokenturn connection show" shows everything. A
generation such as 1.27 has two parts: consents, imports and disconnections raise the
first (the epoch), and each refresh since then raises the second.`,
		func(ctx context.Context, cmd *cobra.Command) error {
			if err := wanted.check(c); err != nil {
				return usageError(cmd, err)
			}
			return c.with(ctx, func(in *installation) error {
				if wanted.environment != "" {
					if err := in.checkEnvironment(ctx, cmd, wanted.environment); err != nil {
						return err
					}
				}
				if wanted.watch {
					return c.watchConnections(ctx, in, wanted)
				}
				return c.listConnections(ctx, in, wanted)
			})
		})
	flags := cmd.Flags()
	flags.BoolVar(&wanted.all, "all", false, "list the connections that nobody uses, too")
	flags.StringVar(&wanted.environment, "environment", "", "list the connections of this environment only")
	flags.StringSliceVar(&wanted.statuses, "status", nil, "list the connections with this `status` only: "+
		strings.Join(statuses, ", ")+"; several with commas")
	flags.StringVar(&wanted.sort, "sort", sortings[0], "`order`: name, status (most urgent first), expires (next to "+
		"expire first), rotated (last rotated first) or due (next due first)")
	flags.BoolVar(&wanted.watch, "watch", false, "show the list again every few seconds, until Ctrl-C")
	for name, values := range map[string][]string{"status": statuses, "sort": sortings} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	return c.withExamples(cmd,
		example{"List the connections", "tokenturn connection list"},
		example{"Watch what needs a person in production",
			"tokenturn connection list --environment production --status needs_consent --watch"},
		example{"Name the connections that are not active",
			`tokenturn --json connection list | jq -r '.[] | select(.status != "active").connection'`})
}

func (l listing) check(c *cli) error {
	for _, status := range l.statuses {
		if !slices.Contains(statuses, status) {
			return fmt.Errorf("there is no status %q; --status takes %s", status, strings.Join(statuses, ", "))
		}
	}
	switch {
	case !slices.Contains(sortings, l.sort):
		return fmt.Errorf("there is no order %q; --sort takes %s", l.sort, strings.Join(sortings, ", "))
	case l.watch && c.json:
		return errors.New("--watch cannot be used with --json")
	}
	return nil
}

func (c *cli) listConnections(ctx context.Context, in *installation, wanted listing) error {
	records, err := in.ledger.List(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	list, hidden := wanted.choose(records, now, c.json)
	switch {
	case len(records) == 0:
		c.say("There are no connections yet. Create one with: tokenturn connection invite ENV/NAME")
	case len(list) == 0 && len(hidden) == 0:
		c.say("No connection matches.")
	}
	if err := c.answer(list, func(w io.Writer) { printConnections(w, list, now, c.painter()) }); err != nil {
		return err
	}
	if len(hidden) > 0 {
		c.say("Not shown: %s. To list them: tokenturn connection list --all", strings.Join(hidden, ", "))
	}
	return nil
}

// choose returns the connections to list, and in words what it leaves out without being
// asked for. A program gets everything that it does not exclude.
func (l listing) choose(records []rotation.Record, now time.Time, program bool) (list []connectionAnswer,
	hidden []string) {
	list = []connectionAnswer{}
	disconnected, expired := 0, 0
	for _, r := range records {
		a := newConnectionAnswer(r)
		a.expired = r.Expired(now)
		switch {
		case l.environment != "" && r.Connection.Environment != l.environment:
		case len(l.statuses) > 0 && !slices.Contains(l.statuses, string(r.Status)):
		case l.all || program || len(l.statuses) > 0:
			list = append(list, a)
		case r.Status == rotation.Disconnected:
			disconnected++
		case a.expired:
			expired++
		default:
			list = append(list, a)
		}
	}
	if disconnected > 0 {
		hidden = append(hidden, fmt.Sprintf("%d disconnected", disconnected))
	}
	if expired > 0 {
		hidden = append(hidden, fmt.Sprintf("%d without a valid invitation", expired))
	}
	slices.SortStableFunc(list, func(a, b connectionAnswer) int { return a.compare(b, l.sort) })
	return list, hidden
}

// compare orders connections; equal ones stay in the order of their names.
func (a connectionAnswer) compare(b connectionAnswer, by string) int {
	earlier := func(a, b time.Time) int {
		switch {
		case a.IsZero() || b.IsZero(): // those without one come last
			return cmp.Compare(b.Unix(), a.Unix())
		default:
			return a.Compare(b)
		}
	}
	switch by {
	case "status":
		return cmp.Compare(b.urgency(), a.urgency())
	case "expires":
		return earlier(a.ExpiresAt, b.ExpiresAt)
	case "rotated":
		return b.RotatedAt.Compare(a.RotatedAt)
	case "due":
		return earlier(a.DueAt, b.DueAt)
	}
	return 0
}

// urgency is higher the sooner a person has to do something.
func (a connectionAnswer) urgency() int {
	switch {
	case a.Status == rotation.NeedsConsent:
		return 5
	case a.Quarantined:
		return 4
	case a.Failure != nil:
		return 3
	case a.Status == rotation.Active:
		return 2
	case a.Status == rotation.Pending && !a.expired:
		return 1
	}
	return 0
}

func printConnections(w io.Writer, list []connectionAnswer, now time.Time, p painter) {
	if len(list) == 0 {
		return
	}
	t := table{head: []string{"CONNECTION", "STATUS", "PERSON", "COMPANY", "EXPIRES", "GENERATION", "LAST ROTATED",
		"NEXT DUE"}, spare: []string{"GENERATION", "LAST ROTATED", "NEXT DUE"}}
	for _, a := range list {
		due := next(a.DueAt, now)
		if a.Status == rotation.Disconnected {
			due = "-"
		}
		t.row(a.Connection.String(), a.paintedStatus(p), a.person(), a.company(), when(a.ExpiresAt, now),
			generation(a.Epoch, a.Generation), when(a.RotatedAt, now), due)
	}
	t.print(w)
}

// paintedStatus shows by its color, and in words, whether a person has to do something.
func (a connectionAnswer) paintedStatus(p painter) string {
	text, with := string(a.Status), plain
	switch {
	case a.Status == rotation.NeedsConsent:
		with = red
	case a.Quarantined:
		text, with = text+" (quarantined)", red
	case a.Failure != nil:
		text, with = text+" ("+a.Failure.Class+")", yellow
	case a.expired:
		text += " (expired)"
	case a.Status == rotation.Active:
		with = green
	}
	return p.paint(text, with)
}

// person says in a table who has consented.
func (a connectionAnswer) person() string {
	switch {
	case a.ServiceAccount:
		return "service account"
	case a.Login != "":
		return a.Login
	case a.ResourceOwner != "":
		return "user " + a.ResourceOwner
	}
	return "-"
}

// company says in a table which company the connection is for.
func (a connectionAnswer) company() string {
	if a.CompanyName != "" {
		return a.CompanyName + ", " + a.Company
	}
	return orDash(a.Company)
}

// clearScreen moves to the top left and clears what is below.
const clearScreen = "\x1b[H\x1b[J"

// watchConnections shows the list until ctx ends. On a terminal each list replaces the last
// one; what does not fit the screen is left out. Elsewhere a list follows another.
func (c *cli) watchConnections(ctx context.Context, in *installation, wanted listing) error {
	pause := 2 * time.Second
	if c.store == "aws" { // each list costs calls
		pause = 10 * time.Second
	}
	for {
		records, err := in.ledger.List(ctx)
		if err == nil {
			err = c.showList(wanted, records, time.Now(), pause)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// showList writes one list of a watch, whole.
func (c *cli) showList(wanted listing, records []rotation.Record, now time.Time, pause time.Duration) error {
	list, hidden := wanted.choose(records, now, false)
	out := page{width: columns(c.stdout), complete: c.withStore}
	printConnections(&out, list, now, c.painter())
	lines := strings.SplitAfter(strings.TrimSuffix(out.String(), "\n"), "\n")
	status := fmt.Sprintf("%s, every %v: %s", now.Local().Format("15:04:05"), pause,
		counted(len(list), "connection", "connections"))
	if len(hidden) > 0 {
		status += "; not shown: " + strings.Join(hidden, ", ")
	}
	before := ""
	if height := rows(c.stdout); height > 0 && c.getenv("TERM") != "dumb" {
		before = clearScreen
		if room := max(height-3, 1); len(lines) > room {
			status += fmt.Sprintf("; the first %d lines", room)
			lines = lines[:room]
		}
	}
	_, err := fmt.Fprint(c.stdout, before+status+"\n"+strings.TrimSuffix(strings.Join(lines, ""), "\n")+"\n")
	if err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}
