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

// importing is one refresh token to import.
type importing struct {
	Connection token.Connection `json:"connection"`
	Refresh    token.Secret     `json:"refresh_token"`
	Company    string           `json:"company"`
}

func (c *cli) connectionImport() *cobra.Command {
	var batch bool
	var company string
	cmd := &cobra.Command{Use: "import {ENV/NAME | --batch}", Short: "Import an existing refresh token",
		Long: `Prompts for the refresh token without showing it, or reads it from a pipe, and rotates it
at once. The imported token is invalid after that. Stop the program that used it first:
if two programs present the same token, Procore refuses the second one, and the
connection may need a new consent.

The app credentials must be those that the token was issued to. The connection must be
new: one that had its own consent needs a new consent instead. tokenturn refuses a token
that it already has, or that it knows to be spent, without presenting it.

--batch reads many tokens from standard input, one JSON object per line:
{"connection":"sandbox/acme","refresh_token":"...","company":"4264807"}
The company is optional. Nothing is imported unless every line is valid. After an
interruption, run the same command again with the same input: tokenturn knows the tokens
that it has imported and does not present them again. The exit codes are those of
"connection rotate --all".`,
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
	cmd.Flags().BoolVar(&batch, "batch", false, "read many tokens from standard input, one JSON object per line")
	cmd.Flags().StringVar(&company, "company", "", "id of the Procore company in which the token's user works")
	return c.withExamples(cmd,
		example{"Import a refresh token, entered at a prompt", "tokenturn connection import sandbox/acme --company 4264807"},
		example{"Import a refresh token from a file", "tokenturn connection import sandbox/acme < refresh-token.txt"},
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
	rotator, err := in.rotator()
	if err != nil {
		return err
	}
	if err := c.checkImports(ctx, in, []importing{one}); err != nil {
		return err
	}
	working, finished := c.uninterrupted(ctx, "The refresh token is being used. Stopping now would lose the token pair; "+
		"tokenturn stops when it is saved.")
	defer finished()
	r := in.importToken(working, rotator, one)
	fault := outcomeError(r)
	if r.Outcome == rotation.ConsentNeeded {
		fault = exitf(needsConsent, "%s: %s. Run the same command again with the right refresh token, or create a link "+
			"for a person with: tokenturn connection invite %[1]s", conn, r.Detail)
	}
	return errors.Join(c.answer(r, func(w io.Writer) { printReport(w, r) }), fault)
}

// refreshToken removes spaces and quotes around a pasted token, and refuses what is none.
func refreshToken(pasted token.Secret) (token.Secret, error) {
	text := strings.Trim(pasted.Reveal(), " \t\r\n\"'`")
	switch {
	case text == "":
		return token.Secret{}, errors.New("the input contains no refresh token")
	case len(text) > 4096 || strings.ContainsFunc(text, func(r rune) bool {
		return r <= ' ' || r > '~' ||
			strings.ContainsRune(`"{}`, r)
	}):
		return token.Secret{}, errors.New("the input is not a refresh token; enter the token alone")
	}
	return token.NewSecret(text), nil
}

// importBatch imports what standard input lists, if every line is valid.
func (c *cli) importBatch(ctx context.Context, in *installation) error {
	var all []importing
	err := c.readSecrets(ctx, "one JSON object per line", func(input io.Reader) (err error) {
		all, err = readImports(input)
		return err
	})
	if errors.Is(err, errInterrupted) {
		return fmt.Errorf("%w; %s", err, nothingImported)
	}
	if err != nil {
		return exitf(usage, "%w\n%s", err, nothingImported)
	}
	rotator, err := in.rotator()
	if err != nil {
		return err
	}
	earlier, err := in.importedBefore(ctx, rotator, all)
	if err != nil {
		return err
	}
	left := slices.DeleteFunc(slices.Clone(all), func(one importing) bool { return earlier[one.Connection] != nil })
	if err := c.checkImports(ctx, in, left); err != nil {
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
			working := context.WithoutCancel(ctx)
			switch before := earlier[one.Connection]; {
			case before != nil && before.Outcome != "":
				report.Connections[i] = *before
			case ctx.Err() != nil: // the others stay as they are, and can be imported later
				report.Connections[i] = rotation.ConnectionReport{Connection: one.Connection, Outcome: rotation.Deferred,
					Detail: "interrupted; not imported"}
			case before != nil:
				report.Connections[i] = rotateImported(working, rotator, one.Connection)
			default:
				report.Connections[i] = in.importToken(working, rotator, one)
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
	if ctx.Err() != nil {
		c.say("Interrupted. Run the same command again with the same input; what is imported is not presented again.")
	}
	return errors.Join(c.answer(report, func(w io.Writer) { printReports(w, report) }), worst(report))
}

// importedBefore finds the lines that an earlier run has imported, by the fingerprints of
// their tokens. A report without an outcome is of a token that is saved and not used yet.
func (in *installation) importedBefore(ctx context.Context, rotator *rotation.Rotator,
	all []importing) (map[token.Connection]*rotation.ConnectionReport, error) {
	found := map[token.Connection]*rotation.ConnectionReport{}
	for _, one := range all {
		rec, responses, err := in.ledger.Load(ctx, one.Connection)
		if err == nil && rec.Status == rotation.Pending && len(responses) > 0 {
			// A run that was killed has saved the token, and nobody has made it the current one.
			if _, err = rotator.Publish(ctx, one.Connection); err == nil {
				rec, _, err = in.ledger.Load(ctx, one.Connection)
			}
		}
		if err != nil {
			return nil, err
		}
		fingerprint := one.Refresh.Fingerprint()
		if !slices.Contains(rec.Imported, fingerprint) || rec.Current == nil {
			continue
		}
		report := &rotation.ConnectionReport{Connection: one.Connection, Epoch: rec.Epoch, Generation: rec.Generation}
		switch {
		case rec.Status == rotation.NeedsConsent:
			report.Outcome, report.Detail = rotation.ConsentNeeded, "it was imported before"
		case rec.Current.Fingerprint != fingerprint:
			report.Outcome, report.ExpiresAt = rotation.Fresh, rec.Current.ExpiresAt
			report.Detail = "it was imported before"
		}
		found[one.Connection] = report
	}
	return found, nil
}

// readImports reads one importing per line. Its errors name the line and quote nothing.
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
			problem("a field other than connection, refresh_token and company")
		case err != nil:
			problem("refresh_token is missing or not valid")
		case one.Company != "" && !companyForm.MatchString(one.Company):
			problem("company is not the number of a Procore company")
		case names[one.Connection]:
			problem(one.Connection.String() + " occurs twice")
		case tokens[refresh]:
			problem("the refresh_token occurs twice")
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

// checkImports refuses what cannot succeed, before anything is presented.
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
		step, end = c.progress("Checking spent tokens", histories)
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
	return exitf(usage, "%s has, or had, its own consent, and tokenturn cannot check to which user a refresh token "+
		"belongs before using it; choose another name, or connect again with: tokenturn connection invite %[1]s", conn)
}

// importToken imports one token and rotates it.
func (in *installation) importToken(ctx context.Context, rotator *rotation.Rotator,
	one importing) rotation.ConnectionReport {
	fail := func(err error) rotation.ConnectionReport {
		return rotation.ConnectionReport{Connection: one.Connection, Outcome: rotation.Failed, Detail: err.Error()}
	}
	if _, err := in.register(ctx, one.Connection, time.Now().Add(codeLife)); err != nil {
		return fail(err)
	}
	consents, err := in.exchanges()
	if err != nil {
		return fail(err)
	}
	if err := consents.Import(ctx, one.Connection, one.Refresh, one.Company); err != nil {
		return fail(err)
	}
	return rotateImported(ctx, rotator, one.Connection)
}

// rotateImported uses an imported token for the first time.
func rotateImported(ctx context.Context, rotator *rotation.Rotator, conn token.Connection) rotation.ConnectionReport {
	report, err := rotator.Rotate(ctx, conn)
	if err != nil {
		return rotation.ConnectionReport{Connection: conn, Outcome: rotation.Failed, Detail: err.Error()}
	}
	r := report.Connections[0]
	if r.Outcome == rotation.ConsentNeeded {
		r.Detail = "Procore refuses the imported token: it is mistyped, spent or revoked, belongs to another " +
			"environment than " + conn.Environment + ", or was issued to another client id"
	}
	return r
}
