package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// importing is one refresh token that moves in.
type importing struct {
	Connection token.Connection `json:"connection"`
	Refresh    token.Secret     `json:"refresh_token"`
	Company    string           `json:"company"`
}

func (c *cli) connectionImport() *cobra.Command {
	var batch bool
	var company string
	cmd := &cobra.Command{Use: "import {ENV/NAME | --batch}", Short: "Take over a refresh token that a script of your " +
		"own has kept",
		Long: `Asks for the refresh token without showing it, or reads it from a pipe, and rotates it
at once. From then on it is spent: stop what used it before, for the first of two that
present it wins, and the other one loses the connection.

The app credentials must be those that the token was issued to. The connection must be
a new one; one that had a consent of its own takes a new consent instead. A token that
is known here, or known to be spent, is refused and not presented.

--batch reads many from standard input, one JSON object a line:
{"connection":"sandbox/acme","refresh_token":"...","company":"4264807"}
of which the company may be left out. Nothing is imported unless every line is in order.
It exits as "connection rotate --all" does.`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case batch && (len(args) > 0 || company != ""):
				return usageError(cmd, errors.New("--batch takes names and companies from standard input"))
			case !batch && len(args) != 1:
				return usageError(cmd, fmt.Errorf("usage: %s", cmd.UseLine()))
			case company != "" && !companyForm.MatchString(company):
				return usageError(cmd, errors.New("--company takes the number of a Procore company, such as 4264807"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if batch {
				return c.withNew(ctx, func(in *installation) error { return c.importBatch(ctx, in) })
			}
			conn, err := token.ParseConnection(args[0])
			if err != nil {
				return usageError(cmd, err)
			}
			return c.withNew(ctx, func(in *installation) error { return c.importOne(ctx, in, conn, company) })
		}}
	cmd.Flags().BoolVar(&batch, "batch", false, "read many from standard input, one JSON object a line")
	cmd.Flags().StringVar(&company, "company", "", "id of the Procore company in which the token's user acts")
	return c.withExamples(cmd,
		example{"Enter the refresh token at a prompt", "tokenturn connection import sandbox/acme --company 4264807"},
		example{"Read the refresh token from a file", "tokenturn connection import sandbox/acme < refresh-token.txt"},
		example{"Import many refresh tokens", "tokenturn connection import --batch < tokens.jsonl"})
}

const nothingImported = "nothing was imported"

func (c *cli) importOne(ctx context.Context, in *installation, conn token.Connection, company string) error {
	if _, err := in.application(ctx, conn.Environment); err != nil {
		return err
	}
	refresh, err := c.askSecret(ctx, "Refresh token (not shown)")
	if err != nil {
		return unanswered(err, nothingImported)
	}
	refresh, err = refreshToken(refresh)
	if err != nil {
		return exitf(usage, "%w; %s", err, nothingImported)
	}
	one := importing{conn, refresh, company}
	if err := c.checkImports(ctx, in, []importing{one}); err != nil {
		return err
	}
	rotator, err := in.rotator()
	if err != nil {
		return err
	}
	working, finished := c.uninterrupted(ctx, "The token is being presented. Stopping now would lose it; "+
		"this ends by itself soon.")
	defer finished()
	r := in.importToken(working, rotator, one)
	return errors.Join(c.answer(r, func(w io.Writer) { printReport(w, r) }), outcomeError(r))
}

// refreshToken is what a person meant: without spaces and quotes around it.
func refreshToken(pasted token.Secret) (token.Secret, error) {
	text := strings.Trim(pasted.Reveal(), " \t\r\n\"'`")
	switch {
	case text == "":
		return token.Secret{}, errors.New("there is no refresh token in that")
	case len(text) > 4096 || strings.ContainsFunc(text, func(r rune) bool {
		return r <= ' ' || r > '~' ||
			strings.ContainsRune(`"{}`, r)
	}):
		return token.Secret{}, errors.New("that is no refresh token; give the token alone")
	}
	return token.NewSecret(text), nil
}

// importBatch imports what standard input lists, if all of it is in order.
func (c *cli) importBatch(ctx context.Context, in *installation) error {
	var all []importing
	err := c.readSecrets(ctx, "one JSON object a line", func(input io.Reader) (err error) {
		all, err = readImports(input)
		return err
	})
	if errors.Is(err, errInterrupted) {
		return fmt.Errorf("%w; %s", err, nothingImported)
	}
	if err != nil {
		return exitf(usage, "%w\n%s", err, nothingImported)
	}
	if err := c.checkImports(ctx, in, all); err != nil {
		return err
	}
	rotator, err := in.rotator()
	if err != nil {
		return err
	}
	defer c.deferSignals(finishingFirst)()
	started := time.Now()
	report := rotation.Report{Op: "import", Due: len(all), Outcomes: map[rotation.Outcome]int{},
		Connections: make([]rotation.ConnectionReport, len(all))}
	step, end := c.progress("Importing", len(all))
	var group errgroup.Group
	group.SetLimit(in.settings.Concurrency)
	var counting sync.Mutex
	for i, one := range all {
		group.Go(func() error {
			if ctx.Err() != nil { // the rest is left as it is, and can be imported later
				report.Connections[i] = rotation.ConnectionReport{Connection: one.Connection, Outcome: rotation.Deferred,
					Detail: "interrupted; not imported"}
			} else {
				report.Connections[i] = in.importToken(context.WithoutCancel(ctx), rotator, one)
			}
			counting.Lock()
			defer counting.Unlock()
			report.Outcomes[report.Connections[i].Outcome]++
			step()
			return nil
		})
	}
	_ = group.Wait()
	end()
	report.Duration = rotation.Milliseconds(time.Since(started).Milliseconds())
	return errors.Join(c.answer(report, func(w io.Writer) { printReports(w, report) }), worst(report))
}

// readImports reads one importing a line, and reports what is wrong by line,
// quoting nothing.
func readImports(r io.Reader) (all []importing, err error) {
	var problems []error
	lines, number := bufio.NewScanner(r), 0
	names, tokens := map[token.Connection]bool{}, map[token.Secret]bool{}
	for lines.Scan() {
		number++
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		var one importing
		problem := func(what string) { problems = append(problems, fmt.Errorf("line %d: %s", number, what)) }
		if json.Unmarshal(line, &one) != nil || one.Connection.IsZero() {
			problem(`not an object such as {"connection":"sandbox/acme","refresh_token":"..."}`)
			continue
		}
		refresh, err := refreshToken(one.Refresh)
		switch {
		case !knownFields(line, importing{}):
			problem("a field that is none of connection, refresh_token and company")
		case err != nil:
			problem("no refresh_token, or one that is none")
		case one.Company != "" && !companyForm.MatchString(one.Company):
			problem("company is not the number of a Procore company")
		case names[one.Connection]:
			problem(one.Connection.String() + " is there twice")
		case tokens[refresh]:
			problem("the refresh_token is there twice")
		}
		one.Refresh = refresh
		names[one.Connection], tokens[refresh] = true, true
		all = append(all, one)
	}
	if err := lines.Err(); err != nil {
		problems = append(problems, fmt.Errorf("after line %d: %w", number, err))
	}
	if len(all) == 0 && len(problems) == 0 {
		problems = append(problems, errors.New("standard input is empty"))
	}
	return all, errors.Join(problems...)
}

// checkImports refuses what is known to fail before anything is presented.
func (c *cli) checkImports(ctx context.Context, in *installation, all []importing) error {
	tokens := map[token.Connection]token.Secret{}
	for _, one := range all {
		if _, err := in.application(ctx, one.Connection.Environment); err != nil {
			return err
		}
		rec, _, err := in.ledger.Load(ctx, one.Connection)
		if err != nil {
			return err
		}
		if rec.Status == rotation.Active || rec.Pin != nil && rec.Pin.ResourceOwner != "" {
			return errConnected(one.Connection)
		}
		tokens[one.Connection] = one.Refresh
	}
	end := func() {}
	known, err := rotation.CheckImports(ctx, in.ledger, tokens, func(histories int) (step func()) {
		step, end = c.progress("Looking among spent tokens", histories)
		return step
	})
	end()
	if err != nil {
		return err
	}
	if len(known) > 0 {
		var errs []error
		for _, conn := range slices.SortedFunc(maps.Keys(known),
			func(a, b token.Connection) int { return strings.Compare(a.String(), b.String()) }) {
			errs = append(errs, fmt.Errorf("%s: %w", conn, known[conn]))
		}
		return exitf(usage, "%w\nnothing was presented and %s", errors.Join(errs...), nothingImported)
	}
	return nil
}

func errConnected(conn token.Connection) error {
	return exitf(usage, "%s has, or had, a consent of its own, and whose a bare refresh token is cannot be told before "+
		"it is spent; choose another name, or connect it anew with: tokenturn connection invite %[1]s", conn)
}

// importToken imports one token and presents it.
func (in *installation) importToken(ctx context.Context, rotator *rotation.Rotator,
	one importing) rotation.ConnectionReport {
	fail := func(err error) rotation.ConnectionReport {
		return rotation.ConnectionReport{Connection: one.Connection, Outcome: rotation.Failed, Detail: err.Error()}
	}
	if _, err := in.register(ctx, one.Connection); err != nil {
		return fail(err)
	}
	consents, err := in.exchanges()
	if err != nil {
		return fail(err)
	}
	if err := consents.Import(ctx, one.Connection, one.Refresh, one.Company); err != nil {
		return fail(err)
	}
	report, err := rotator.Rotate(ctx, one.Connection)
	if err != nil {
		return fail(err)
	}
	r := report.Connections[0]
	if r.Outcome == rotation.ConsentNeeded {
		r.Detail = "Procore refuses the imported token: it is spent or revoked, is of another environment than " +
			one.Connection.Environment +
			", or was issued to another client id"
	}
	return r
}
