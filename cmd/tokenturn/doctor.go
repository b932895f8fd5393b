package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/aws/smithy-go"
	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/config"
	"github.com/tokenturn/tokenturn/pkg/doctor"
	"github.com/tokenturn/tokenturn/pkg/embedded"
)

func (c *cli) doctorCommand() *cobra.Command {
	var advise bool
	cmd := verb("doctor", "Check the whole installation and say what to do",
		`Checks settings, keys, stores, permissions, queue and schedule. Checks at each login host
whether it accepts the app credentials and each connection's access token, and whether
people who allow access return to tokenturn. It changes nothing and uses no refresh token.

Exit codes: 0 no problem, or only warnings; 1 an operator must act; 3 a person must give
consent; 5 something cannot be determined now. The most serious finding decides.

--advise checks nothing. It says which kind of access a company needs, a user's or a
service account's, and which kind each connection has.`,
		func(ctx context.Context, _ *cobra.Command) error {
			if advise {
				return c.advise(ctx)
			}
			if c.store == "aws" {
				findings, err := c.configurationFindings(ctx)
				if err != nil {
					return err
				}
				if len(findings) > 0 {
					return c.answerFindings(findings)
				}
			}
			return c.with(ctx, func(in *installation) error { return c.answerFindings(c.examine(ctx, in)) })
		})
	cmd.Flags().BoolVar(&advise, "advise", false, "say which kind of access a company needs; check nothing")
	return c.withExamples(cmd,
		example{"Check the installation on this machine", "tokenturn doctor"},
		example{"Check the installation in AWS", "tokenturn --store aws doctor"},
		example{"See which kind of access a company needs", "tokenturn doctor --advise"},
		example{"Print only the problems",
			`tokenturn --json doctor | jq -r '.findings[] | select(.level != "ok").detail'`})
}

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
	d := doctor.New(doctor.Config{Records: in.ledger, SecretStore: in.secrets, Sealer: in.sealer, Applications: in.apps,
		Issuer:   in.issuer,
		Settings: in.settings, FollowUps: in.followUps != nil || c.store == "embedded", PublicURL: in.publicURL,
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

func (c *cli) answerFindings(findings []doctor.Finding) error {
	for i := range findings {
		findings[i].Remedy = c.withStore(findings[i].Remedy)
	}
	a := doctorAnswer{doctor.Worst(findings), findings}
	if err := c.answer(a, func(w io.Writer) { printFindings(w, findings, c.painter()) }); err != nil {
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

// printFindings shows the most serious finding first, each with what to do below it.
func printFindings(w io.Writer, findings []doctor.Finding, p painter) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s\tCHECK\tSUBJECT\tFINDING\n", p.paint("LEVEL", plain))
	for _, f := range doctor.Sorted(findings) {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", p.paint(string(f.Level), levelColors[f.Level]), f.Check, orDash(f.Subject),
			oneLine(f.Detail))
		if f.Remedy != "" {
			fmt.Fprintf(t, "%s\t\t\t→ %s\n", p.paint("", plain), oneLine(f.Remedy))
		}
	}
	t.Flush()
}
