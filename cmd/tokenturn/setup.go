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

	"github.com/tokenturn/tokenturn/pkg/doctor"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// setupFlags are the flags of `setup`.
type setupFlags struct {
	access    string
	company   string
	noBrowser bool
}

func (c *cli) setupCommand() *cobra.Command {
	var flags setupFlags
	cmd := &cobra.Command{Use: "setup [ENV/NAME]",
		Short: "Go step by step from the Developer Portal to the first API call",
		Long: `Leads from a new app in Procore's Developer Portal to the first call with a token: which
kind of access, the app and its components, redirect URIs, app credentials, installation
in the company, consent, /rest/v1.0/me and the list of companies. Each step says what to
do and how to tell that it is done, and tokenturn checks what it can check.

The guide stores nothing of its own. Which steps are done follows from the app credentials
and the connection, so Ctrl-C at any time loses nothing, and the same command continues.
ENV/NAME is the connection to set up; without it, tokenturn asks in a terminal, and
otherwise takes the only connection that there is, or sandbox/acme.

With --json, or if standard input is not a terminal, it prompts for nothing: it prints the
steps with their states. It then exits with 0 if the setup is complete, with 1 if the next
step is yours, 3 if a person must give consent, and 5 if the next step cannot be checked
now.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError(cmd, fmt.Errorf("usage: %s", cmd.UseLine()))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return c.setup(cmd.Context(), cmd, args, flags) }}
	cmd.Flags().StringVar(&flags.access, "access", "", "kind of access: user or service-account (see tokenturn doctor "+
		"--advise)")
	cmd.Flags().StringVar(&flags.company, "company", "", "id of the Procore company")
	cmd.Flags().BoolVar(&flags.noBrowser, "no-browser", false, "do not open a browser")
	return c.withExamples(cmd,
		example{"Start, or continue, in the developer sandbox", "tokenturn setup sandbox/acme"},
		example{"Set up a service account in one company",
			"tokenturn setup production/sync --access service-account --company 4264807"},
		example{"Print the next step", `tokenturn --json setup sandbox/acme | jq -r '.next as $n | .steps[] | ` +
			`select(.step == $n)'`})
}

func (c *cli) setup(ctx context.Context, cmd *cobra.Command, args []string, flags setupFlags) error {
	g := &guide{c: c, cmd: cmd, company: flags.company, noBrowser: flags.noBrowser, confirmed: map[string]bool{},
		shown: map[string]setupState{}}
	switch flags.access {
	case "":
	case "user":
		g.access = userAccess
	case "service-account":
		g.access = serviceAccount
	default:
		return usageError(cmd, errors.New("--access takes user or service-account"))
	}
	if err := checkExpected(cmd, rotation.Identity{Company: flags.company}); err != nil {
		return err
	}
	if len(args) > 0 {
		conn, err := token.ParseConnection(args[0])
		if err != nil {
			return usageError(cmd, err)
		}
		g.conn = conn
	}
	if c.json || !isTerminal(c.stdin) {
		return c.withAny(ctx, func(in *installation) error {
			g.in = in
			if err := in.checkSetup(ctx, g.conn); err != nil {
				return err
			}
			return g.checklist(ctx)
		})
	}
	return c.withNew(ctx, func(in *installation) error {
		g.in = in
		if err := in.checkSetup(ctx, g.conn); err != nil {
			return err
		}
		return g.stopped(ctx, g.run(ctx))
	})
}

// guide leads through the steps for one connection.
type guide struct {
	c         *cli
	cmd       *cobra.Command
	in        *installation // nil: nothing is stored yet
	conn      token.Connection
	access    access // empty: not chosen
	company   string
	noBrowser bool
	// accepted are the app credentials that the login host has accepted during this run.
	accepted   procore.Credentials
	acceptance doctor.Finding
	// confirmed are the steps that tokenturn cannot check and the person says are done.
	confirmed map[string]bool
	// shown are the states of the steps that were printed as finished.
	shown map[string]setupState
}

// setupAnswer is what `setup --json` answers.
type setupAnswer struct {
	Connection   token.Connection  `json:"connection"`
	Access       access            `json:"access"` // user unless something else was chosen
	Complete     bool              `json:"complete"`
	Next         string            `json:"next,omitempty"` // the first required step that is not done
	RedirectURIs []redirectURI     `json:"redirect_uris"`
	Companies    []procore.Company `json:"companies"` // that the token can see
	Steps        []setupStep       `json:"steps"`
}

// setupState is what is known about a step or a redirect URI.
type setupState string

const (
	stepDone      setupState = "done"
	stepTodo      setupState = "todo"
	stepUnchecked setupState = "unchecked" // tokenturn cannot check it
	stepLater     setupState = "later"     // it cannot be checked now
	stepProblem   setupState = "problem"
	stepNotNeeded setupState = "not_needed"
)

// setupStep is one step of the guide.
type setupStep struct {
	Step     string     `json:"step"`
	Title    string     `json:"title"`
	State    setupState `json:"state"`
	Found    string     `json:"found"`     // what tokenturn knows about it
	Do       []string   `json:"do"`        // what to do
	DoneWhen string     `json:"done_when"` // how to tell that it is done
	Required bool       `json:"required"`  // for the first API call
	// Passed: it cannot be checked, and a later step was begun.
	Passed bool `json:"passed"`
}

func (s setupStep) over() bool { return s.State == stepDone || s.State == stepNotNeeded || s.Passed }

// checklist prints the steps with their states, and prompts for nothing.
func (g *guide) checklist(ctx context.Context) error {
	if g.conn == (token.Connection{}) {
		var err error
		if g.conn, err = g.usualConnection(ctx); err != nil {
			return err
		}
	}
	facts, err := g.gather(ctx)
	if err != nil {
		return err
	}
	a := facts.answer(g.c.withStore)
	if err := g.c.answer(a, func(w io.Writer) { a.print(w, g.c.painter()) }); err != nil {
		return err
	}
	if a.Complete {
		return nil
	}
	next := a.step(a.Next)
	code := failed
	switch {
	case next.State == stepLater:
		code = tryLater
	case next.Step == stepConsent && next.State == stepTodo && facts.access() == userAccess:
		code = needsConsent
	}
	return exitf(code, "the setup of %s is not complete; the next step, %q, is described above", g.conn, next.Title)
}

// usualConnection is the connection that a person probably means.
func (g *guide) usualConnection(ctx context.Context) (token.Connection, error) {
	usual := token.Connection{Environment: "sandbox", Name: "acme"}
	if g.in == nil {
		return usual, nil
	}
	records, err := g.in.ledger.List(ctx)
	if err != nil {
		return usual, err
	}
	records = slices.DeleteFunc(records, func(r rotation.Record) bool { return r.Status == rotation.Disconnected })
	if len(records) == 1 {
		usual = records[0].Connection
	}
	return usual, nil
}

func (f *setupFacts) answer(command func(string) string) setupAnswer {
	a := setupAnswer{Connection: f.conn, Access: f.access(), RedirectURIs: f.redirects, Companies: f.companies,
		Steps: f.steps()}
	for i := range a.Steps {
		s := &a.Steps[i]
		s.Found, s.DoneWhen = command(s.Found), command(s.DoneWhen)
		for n := range s.Do {
			s.Do[n] = command(s.Do[n])
		}
		if a.Next == "" && s.Required && !s.over() {
			a.Next = s.Step
		}
	}
	for i := range a.RedirectURIs {
		a.RedirectURIs[i].Use, a.RedirectURIs[i].Found = command(a.RedirectURIs[i].Use), command(a.RedirectURIs[i].Found)
	}
	a.Complete = a.Next == ""
	return a
}

func (a setupAnswer) step(name string) setupStep {
	i := slices.IndexFunc(a.Steps, func(s setupStep) bool { return s.Step == name })
	return a.Steps[i]
}

var setupColors = map[setupState]color{stepDone: green, stepNotNeeded: green, stepTodo: yellow, stepUnchecked: yellow,
	stepLater: yellow, stepProblem: red}

func (a setupAnswer) print(w io.Writer, p painter) {
	var t table
	t.row("STATE", "STEP", "FOUND")
	for _, s := range a.Steps {
		t.row(p.paint(string(s.State), setupColors[s.State]), s.Title, oneLine(s.Found))
	}
	t.print(w)
	if a.Next != "" {
		prose(w, "\nNext: %s\n", a.step(a.Next).text(a.RedirectURIs))
	}
}

// text is a step with what to do, for people.
func (s setupStep) text(redirects []redirectURI) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s\n", s.Title)
	for _, line := range s.Do {
		fmt.Fprintf(&text, "  - %s\n", line)
	}
	if s.Step == stepRedirectURIs {
		for _, r := range redirects {
			fmt.Fprintf(&text, "\n    %s\n      for %s\n      here: %s\n", r.URI, r.Use, r.Found)
		}
		text.WriteString("\n")
	}
	fmt.Fprintf(&text, "  Done when: %s.", s.DoneWhen)
	return text.String()
}

// run asks and acts until the setup is complete.
func (g *guide) run(ctx context.Context) error {
	if where := g.c.installationName(); where != "" {
		g.say("Installation: %s", where)
	}
	if g.conn == (token.Connection{}) {
		if err := g.askConnection(ctx); err != nil {
			return err
		}
	}
	g.say("Setup of %s. Ctrl-C stops at any time and loses nothing; to continue: tokenturn setup %[1]s", g.conn)
	for ctx.Err() == nil {
		facts, err := g.gather(ctx)
		if err != nil {
			return err
		}
		a := facts.answer(g.c.withStore)
		number, next := g.next(a)
		if next.Step == "" {
			return g.end(facts, a)
		}
		if next.Step == stepConsent && facts.access() == userAccess { // connect offers the same
			next.Do = nil
		}
		g.say("\nStep %d of %d: %s\n  Now: %s.", number, facts.required(), next.text(a.RedirectURIs), next.Found)
		if err := g.act(ctx, facts, next); err != nil {
			if !g.mayGoOn(ctx, err) {
				return err
			}
			g.say("\n%v", err)
		}
	}
	return errInterrupted
}

// say writes a message for the person, in lines that fit the terminal.
func (g *guide) say(format string, args ...any) {
	fmt.Fprintln(g.c.stderr, fitProse(columns(g.c.stderr), g.c.withStore(fmt.Sprintf(format, args...))))
}

// next prints what has been done since the last step, and returns the first step that is
// still to be done.
func (g *guide) next(a setupAnswer) (number int, next setupStep) {
	for i, s := range a.Steps {
		switch {
		case !s.Required:
		case s.over():
			if g.shown[s.Step] != s.State && !(s.State == stepUnchecked && g.confirmed[s.Step]) {
				g.say("  %s: %s: %s", strings.ReplaceAll(string(s.State), "_", " "), s.Title, s.Found)
			}
			g.shown[s.Step] = s.State
		case s.State == stepUnchecked && g.confirmed[s.Step]:
		case next.Step == "":
			number, next = i+1, s
		}
	}
	return number, next
}

// mayGoOn reports whether the person can try again after an error.
func (g *guide) mayGoOn(ctx context.Context, err error) bool {
	return ctx.Err() == nil && !errors.Is(err, errInterrupted) && !errors.Is(err, errInputEnded)
}

// stopped adds to the error that ends the guide how to continue.
func (g *guide) stopped(ctx context.Context, err error) error {
	if err == nil || g.mayGoOn(ctx, err) || g.conn == (token.Connection{}) {
		return err
	}
	return unanswered(err, "what was done is kept; continue with: tokenturn setup "+g.conn.String())
}

func (g *guide) askConnection(ctx context.Context) error {
	usual, err := g.usualConnection(ctx)
	if err != nil {
		return err
	}
	g.say("A connection is named ENV/NAME. ENV is sandbox (the developer sandbox, the place to begin), production, " +
		"monthly-sandbox, federal, or a custom environment. NAME is yours, such as the name of a company.")
	for {
		answer, err := g.c.ask(ctx, "Connection", usual.String())
		if err != nil {
			return unanswered(err, "nothing was changed")
		}
		conn, err := token.ParseConnection(answer)
		if err == nil {
			err = g.in.checkSetup(ctx, conn)
		}
		if err == nil {
			g.conn = conn
			return nil
		}
		g.say("%v", err)
	}
}

// act lets the person do one step, or does it.
func (g *guide) act(ctx context.Context, f *setupFacts, s setupStep) error {
	switch {
	case s.Step == stepAccess:
		return g.chooseAccess(ctx)
	case s.Step == stepRedirectURIs && s.State == stepProblem, s.Step == stepCredentials && s.State != stepLater:
		return g.c.setApp(ctx, g.cmd, g.in, g.conn.Environment, appSetFlags{})
	case s.Step == stepInstall && f.company == "" && s.State != stepProblem:
		return g.askCompany(ctx, f)
	case s.Step == stepConsent && f.access() == serviceAccount:
		return g.connectServiceAccount(ctx, f)
	case s.Step == stepConsent:
		return g.connect(ctx, f)
	}
	question := "Press Enter to check again"
	if s.State == stepUnchecked {
		question = "Press Enter when this is done"
	}
	if _, err := g.c.ask(ctx, question, ""); err != nil {
		return err
	}
	g.confirmed[s.Step] = true
	return nil
}

// choose asks for one of several answers by its number.
func (g *guide) choose(ctx context.Context, question string, usual int, answers ...string) (int, error) {
	for i, answer := range answers {
		g.say("  %d  %s", i+1, answer)
	}
	for {
		typed, err := g.c.ask(ctx, question, fmt.Sprint(usual))
		if err != nil {
			return 0, err
		}
		for i := range answers {
			if typed == fmt.Sprint(i+1) {
				return i + 1, nil
			}
		}
		g.say("Type a number from 1 to %d.", len(answers))
	}
}

func (g *guide) chooseAccess(ctx context.Context) error {
	chosen, err := g.choose(ctx, "Kind of access", 1, "a user's consent", "the app's service account")
	if err == nil {
		g.access = []access{userAccess, serviceAccount}[chosen-1]
	}
	return err
}

// askCompany asks for the company before the installation there. A user's consent can do
// without.
func (g *guide) askCompany(ctx context.Context, f *setupFacts) error {
	usual := ""
	if len(f.companies) > 0 {
		usual = f.companies[0].ID
		for _, one := range f.companies {
			g.say("  %s  %s", one.ID, one.Name)
		}
	}
	optional := f.access() == userAccess && usual == ""
	question := "Id of the company"
	if optional {
		question += " (Enter if it is not known yet)"
	}
	for {
		answer, err := g.c.ask(ctx, question, usual)
		switch {
		case err != nil:
			return err
		case answer == "" && optional:
			g.confirmed[stepInstall] = true
			return nil
		case companyForm.MatchString(answer):
			g.company = answer
			return nil
		}
		g.say("The id of a company is a number, such as 4264807.")
	}
}

func (g *guide) connectServiceAccount(ctx context.Context, f *setupFacts) error {
	if f.company == "" {
		return g.askCompany(ctx, f)
	}
	if _, err := g.c.ask(ctx, "Press Enter to connect", ""); err != nil {
		return err
	}
	if !f.decided() {
		return g.c.serviceAccount(ctx, g.in, g.conn, f.company)
	}
	rotator, err := g.in.rotator()
	if err != nil {
		return err
	}
	report, err := rotator.Rotate(ctx, g.conn) // unlike the first attempt, it does not wait after a failure
	if err != nil {
		return err
	}
	return outcomeError(report.Connections[0])
}

// connect gets a user's consent in the way that the person chooses.
func (g *guide) connect(ctx context.Context, f *setupFacts) error {
	link, loop := f.redirect(linkRedirect), f.loopback()
	ways := []string{
		fmt.Sprintf("a link for the person who allows access (%s: %s)", link.URI, link.Found),
		fmt.Sprintf("the browser of this machine (%s: %s)", loop.URI, loop.Found),
		"any browser; paste the code that Procore shows",
		"look again whether somebody has allowed access",
	}
	usual := 3
	switch {
	case f.open != nil || f.waiting:
		usual = 4
	case link.Stored && link.State == stepDone:
		usual = 1
	}
	chosen, err := g.choose(ctx, "Way", usual, ways...)
	if err != nil {
		return err
	}
	if f.rec.Revision == "" && (chosen == 2 || chosen == 3) { // the row shows how far the guide has come
		if _, err := g.in.register(ctx, g.conn, time.Now().Add(codeLife)); err != nil {
			return err
		}
	}
	expect := rotation.Identity{Company: f.company}
	const unregistered = "If Procore shows an error page, the app does not have the redirect URI %s: press Ctrl-C, " +
		"register it in the Developer Portal, and continue."
	switch chosen {
	case 1:
		g.say(unregistered, link.URI)
		return g.c.invite(ctx, g.cmd, g.in, g.conn, invitation{expires: invitationLifetime, expect: expect})
	case 2:
		g.say(unregistered, loop.URI)
		return g.c.authorize(ctx, g.in, g.conn, authorizeFlags{expect: expect, loopback: loop.URI, noBrowser: g.noBrowser})
	case 3:
		g.say(unregistered, procore.OutOfBand)
		return g.c.authorize(ctx, g.in, g.conn, authorizeFlags{expect: expect, noBrowser: g.noBrowser})
	}
	if f.waiting { // a saved consent that the next run would complete
		return g.in.completeConsent(ctx, g.conn)
	}
	return nil
}

// completeConsent lets the engine decide on what is saved. It presents nothing.
func (in *installation) completeConsent(ctx context.Context, conn token.Connection) error {
	rotator, err := in.rotator()
	if err != nil {
		return err
	}
	_, err = rotator.Publish(ctx, conn)
	return err
}

// end says what comes after the first API call.
func (g *guide) end(f *setupFacts, a setupAnswer) error {
	for _, s := range a.Steps {
		if !s.Required && s.State != stepNotNeeded {
			g.say("\n%s\n  Now: %s.", s.text(nil), s.Found)
		}
	}
	if g.c.store == "embedded" {
		g.say("\nWhat keeps the token fresh, and must stay running: tokenturn serve")
	}
	if (f.rec.Pin == nil || f.rec.Pin.Company == "") && len(f.companies) > 1 {
		g.say("The company is not stored with the connection. To check the setup again, name it: "+
			"tokenturn setup %s --company %s", g.conn, f.company)
	}
	g.say("Programs read the token with: tokenturn token print %s\nTo check everything: tokenturn doctor", g.conn)
	return g.c.answer(a, func(w io.Writer) {
		fmt.Fprintf(w, "The setup of %s is complete: %s\n", a.Connection, cmp.Or(a.step(stepFirstCall).Found, "-"))
	})
}
