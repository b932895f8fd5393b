package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/fsck"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// recheckAfter is the time after which fsck checks each finding again: by then, runs have
// ended the steps that they had begun, and reads by label are consistent.
const recheckAfter = 2 * time.Second

func (c *cli) fsckCommand() *cobra.Command {
	return c.withExamples(&cobra.Command{Use: "fsck [ENV/NAME...]",
		Short: "Check the stored data for damage and say what to do",
		Long: `Compares ledger rows, saved token responses, histories and secrets with each other and with
the rules of the engine, for the named connections or for all. It changes nothing, sends
nothing to Procore, and can run at any time. It checks each finding twice.

Without permission to use the sealing key, some checks cannot be made; the output lists
them. To check settings, permissions and schedule, run "tokenturn doctor".

Exit codes: 0 no damage; 1 damage, or data that cannot be read; 4 no such connection.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var only []token.Connection
			for _, arg := range args {
				conn, err := token.ParseConnection(arg)
				if err != nil {
					return usageError(cmd, err)
				}
				only = append(only, conn)
			}
			if report, err := c.keyFile(); err != nil || len(report.Findings) > 0 {
				return errors.Join(err, c.answerDamage(report)) // the key is not used: others may have read it
			}
			return c.with(cmd.Context(), func(in *installation) error { return c.fsck(cmd.Context(), in, only) })
		}},
		example{"Check all connections", "tokenturn fsck"},
		example{"Check one connection", "tokenturn fsck sandbox/acme"},
		example{"List connection and kind of each finding",
			"tokenturn --json fsck | jq -r '.findings[] | [.connection, .kind] | @tsv'"})
}

// keyFile checks the key file of an installation on one machine, if there is one.
func (c *cli) keyFile() (fsck.Report, error) {
	report := fsck.Report{Findings: []fsck.Finding{}, NotMade: []fsck.NotMade{}}
	if c.store != "embedded" {
		return report, nil
	}
	dir, err := c.dataDir()
	if err != nil {
		return report, err
	}
	path := filepath.Join(dir, embedded.KeyName)
	info, err := os.Stat(path)
	if err != nil { // opening the store reports it
		return report, nil
	}
	if report.Findings = append(report.Findings, fsck.KeyFile(path, info.Mode())...); len(report.Findings) > 0 {
		report.NotMade = []fsck.NotMade{{Check: "all others", Reason: "correct the mode of the key file first"}}
	}
	return report, nil
}

func (c *cli) fsck(ctx context.Context, in *installation, only []token.Connection) error {
	for _, conn := range only {
		if _, _, err := in.load(ctx, conn); err != nil {
			return err
		}
	}
	end := func() {}
	begin := func(connections int) (step func()) {
		step, end = c.progress("Checking", connections)
		return step
	}
	report, err := fsck.Check(ctx, fsck.Config{Ledger: in.ledger, Secrets: in.secrets, Sealer: in.sealer,
		Issuer: in.issuer, Settings: in.settings, Pause: recheckAfter, Begin: begin}, only...)
	end()
	if err != nil && report.Findings == nil {
		return err
	}
	return errors.Join(err, c.answerDamage(report))
}

func (c *cli) answerDamage(report fsck.Report) error {
	for i := range report.Findings {
		report.Findings[i].Remedy = c.withStore(report.Findings[i].Remedy)
	}
	if err := c.answer(report, func(w io.Writer) { printDamage(w, report, c.painter()) }); err != nil {
		return err
	}
	if n := len(report.Findings); n > 0 {
		return exitf(failed, "%d findings of damage; each says what to do", n)
	}
	return nil
}

func printDamage(w io.Writer, report fsck.Report, p painter) {
	if len(report.Findings) > 0 {
		var t table
		t.row("DAMAGE", "CONNECTION", "FINDING")
		for _, f := range report.Findings {
			subject := "-"
			if !f.Connection.IsZero() {
				subject = f.Connection.String()
			}
			t.row(p.paint(string(f.Kind), red), subject, oneLine(f.Detail))
			t.row("", "", "→ "+oneLine(f.Remedy))
		}
		t.print(w)
	}
	for _, m := range report.NotMade {
		fmt.Fprintf(w, "not checked: %s, of %s: %s\n", m.Check, counted(m.Connections, "connection", "connections"),
			oneLine(m.Reason))
	}
	fmt.Fprintf(w, "%s checked\n", counted(report.Connections, "connection", "connections"))
}
