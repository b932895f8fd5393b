package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/aws/smithy-go"
	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/config"
	"github.com/tokenturn/tokenturn/pkg/doctor"
	"github.com/tokenturn/tokenturn/pkg/embedded"
)

func (c *cli) doctorCommand() *cobra.Command {
	var advise bool
	var only string
	cmd := verb("doctor", "Check the whole installation and say what to do",
		`Checks settings, keys, stores, permissions, queue and schedule. Checks at each login host
whether it accepts the app credentials and each connection's access token, and whether
people who allow access return to tokenturn. It changes nothing and uses no refresh token.

Findings with the same cause are one entry. The most serious ones come last. With
"--only problems", what is in order is left out.

Exit codes: 0 no problem, or only warnings; 1 an operator must act; 3 a person must give
consent; 5 something cannot be determined now. The most serious finding decides.

--advise checks nothing. It says which kind of access a company needs, a user's or a
service account's, and which kind each connection has.`,
		func(ctx context.Context, cmd *cobra.Command) error {
			switch {
			case only != "" && only != onlyProblems:
				return usageError(cmd, fmt.Errorf("--only takes %s", onlyProblems))
			case only != "" && advise:
				return usageError(cmd, errors.New("--only cannot be used with --advise, which checks nothing"))
			case advise:
				return c.advise(ctx)
			}
			if c.store == "aws" {
				findings, err := c.configurationFindings(ctx)
				if err != nil {
					return err
				}
				if len(findings) > 0 {
					return c.answerFindings(findings, only)
				}
			}
			return c.with(ctx, func(in *installation) error { return c.answerFindings(c.examine(ctx, in), only) })
		})
	cmd.Flags().BoolVar(&advise, "advise", false, "say which kind of access a company needs; check nothing")
	cmd.Flags().StringVar(&only, "only", "", "`problems`: leave out what is in order")
	_ = cmd.RegisterFlagCompletionFunc("only", cobra.FixedCompletions([]string{onlyProblems},
		cobra.ShellCompDirectiveNoFileComp))
	return c.withExamples(cmd,
		example{"Check the installation on this machine", "tokenturn doctor"},
		example{"Check the installation in AWS", "tokenturn --store aws doctor"},
		example{"See which kind of access a company needs", "tokenturn doctor --advise"},
		example{"Show what needs attention", "tokenturn doctor --only problems"},
		example{"Print the details of what needs attention",
			`tokenturn --json doctor --only problems | jq -r '.findings[].detail'`})
}

// onlyProblems is the value of --only.
const onlyProblems = "problems"

// configurationFindings are the findings if the settings or the credentials do not allow
// opening the installation.
func (c *cli) configurationFindings(ctx context.Context) ([]doctor.Finding, error) {
	conf, err := c.configure(ctx)
	if err == nil {
		_, err = conf.settings()
	}
	if problems, ok := errors.AsType[settingsError](err); ok {
		return settingsFindings(problems), nil
	}
	if err != nil {
		return nil, err
	}
	// Credentials that AWS refuses would be a finding of every check.
	_, err = caller(conf.aws)(ctx)
	if answer, ok := errors.AsType[smithy.APIError](err); ok && credentialFaults[answer.ErrorCode()] != "" {
		return nil, conf.explain(err)
	}
	return nil, nil
}

// settingsFindings are the findings if the settings do not allow opening the installation.
func settingsFindings(err error) (findings []doctor.Finding) {
	for line := range strings.Lines(err.Error()) {
		detail, remedy := strings.TrimSpace(line), "correct this variable"
		if name, _, _ := strings.Cut(detail, " "); config.InStack(name) {
			remedy = fmt.Sprintf("set %s to the stack output %s, or name the stack with --stack", name, config.Output(name))
		}
		findings = append(findings, doctor.Finding{Check: "settings", Level: doctor.Problem, Detail: detail, Remedy: remedy})
	}
	return findings
}

// checkStore examines the database file of an installation on one machine.
func checkStore(store *embedded.Store, dir string) doctor.Check {
	return func(ctx context.Context) []doctor.Finding {
		if err := store.Examine(ctx); err != nil {
			return []doctor.Finding{{Check: "store", Subject: dir, Level: doctor.Problem, Detail: err.Error(),
				Remedy: "stop every tokenturn process that uses it, and restore a backup of the database and its key file"}}
		}
		return []doctor.Finding{{Check: "store", Subject: dir, Level: doctor.OK,
			Detail: "database and key file are in order"}}
	}
}

func (c *cli) examine(ctx context.Context, in *installation) []doctor.Finding {
	settings := in.settings
	if c.store == "embedded" {
		settings.Cadence = servedEvery(in.dir, settings.Cadence)
	}
	d := doctor.New(doctor.Config{Records: in.ledger, SecretStore: in.secrets, Sealer: in.sealer, Applications: in.apps,
		Environments: in.environments, Issuer: in.issuer,
		Settings: settings, FollowUps: in.followUps != nil || c.store == "embedded", PublicURL: in.publicURL,
		Extra: in.checks})
	var step, end func()
	findings := d.Examine(ctx, func(pieces int) { step, end = c.progress("Checking", pieces) }, func() { step() })
	end()
	return findings
}

// doctorAnswer is what `doctor --json` answers.
type doctorAnswer struct {
	Level    doctor.Level     `json:"level"` // the most serious
	Findings []doctor.Finding `json:"findings"`
}

// exitCodes are the exit codes of findings.
var exitCodes = map[doctor.Level]int{doctor.OK: done, doctor.Warning: done, doctor.Later: tryLater,
	doctor.Consent: needsConsent, doctor.Problem: failed}

func (c *cli) answerFindings(findings []doctor.Finding, only string) error {
	for i := range findings {
		findings[i].Remedy = c.withStore(findings[i].Remedy)
	}
	shown := findings
	if only == onlyProblems {
		shown = slices.DeleteFunc(slices.Clone(findings), func(f doctor.Finding) bool { return f.Level == doctor.OK })
	}
	a := doctorAnswer{doctor.Worst(findings), shown}
	if len(shown) == 0 {
		c.say("No problems: %s in order.", counted(len(findings), "finding is", "findings are"))
	}
	if err := c.answer(a, func(w io.Writer) { printFindings(w, shown, c.painter()) }); err != nil {
		return err
	}
	code := exitCodes[a.Level]
	if code == done {
		return nil
	}
	return exitf(code, "%d of %d findings need action; each says what to do", countUnresolved(findings),
		len(findings))
}

func countUnresolved(findings []doctor.Finding) (n int) {
	for _, f := range findings {
		if exitCodes[f.Level] != done {
			n++
		}
	}
	return n
}

var levelColors = map[doctor.Level]color{doctor.OK: green, doctor.Warning: yellow, doctor.Later: yellow,
	doctor.Consent: red, doctor.Problem: red}

// printFindings shows one entry for each cause, the gravest last, with what to do below it.
func printFindings(w io.Writer, findings []doctor.Finding, p painter) {
	if len(findings) == 0 {
		return
	}
	var t table
	t.row("LEVEL", "CHECK", "FINDING")
	for _, cause := range doctor.Causes(findings) {
		level, check := p.paint(string(cause.Level), levelColors[cause.Level]), cause.Check
		for _, line := range findingLines(cause) {
			t.row(level, check, line)
			level, check = "", ""
		}
		if cause.Remedy != "" {
			t.row("", "", "→ "+oneLine(cause.Remedy))
		}
	}
	t.print(w)
}

// findingLines says what was found, in one line where it is the same for all subjects. What
// is in order is counted.
func findingLines(cause doctor.Cause) (lines []string) {
	byDetail, details := map[string][]string{}, []string{}
	for _, f := range cause.Findings {
		if byDetail[f.Detail] == nil {
			details = append(details, f.Detail)
		}
		byDetail[f.Detail] = append(byDetail[f.Detail], f.Subject)
	}
	if cause.Level == doctor.OK && len(details) > 1 {
		return []string{subjects(cause.Findings)}
	}
	for _, detail := range details {
		line := oneLine(detail)
		switch about := strings.Join(byDetail[detail], ", "); {
		case cause.Level == doctor.OK && len(cause.Findings) > 1:
			line = subjects(cause.Findings) + ": " + line
		case about != "":
			line = about + ": " + line
		}
		lines = append(lines, line)
	}
	return lines
}

// subjects counts what several findings are about. Only names of connections have a slash.
func subjects(findings []doctor.Finding) string {
	if strings.Contains(findings[0].Subject, "/") {
		return counted(len(findings), "connection", "connections")
	}
	var names []string
	for _, f := range findings {
		names = append(names, f.Subject)
	}
	return strings.Join(names, ", ")
}
