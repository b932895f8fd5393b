package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// The variables that `token exec` sets for the program.
const (
	tokenVariable   = "PROCORE_ACCESS_TOKEN" // unless --variable names another
	apiVariable     = "PROCORE_API_URL"
	companyVariable = "PROCORE_COMPANY_ID"
)

// The exit codes of shells for a program that cannot be run or found
// (https://pubs.opengroup.org/onlinepubs/9799919799/utilities/env.html).
const (
	cannotRun      = 126
	commandMissing = 127
)

func (c *cli) tokenExec() *cobra.Command {
	var renew renewal
	variable := tokenVariable
	cmd := &cobra.Command{Use: "exec ENV/NAME [flags] -- COMMAND [ARGUMENT...]", DisableFlagsInUseLine: true,
		Short: "Run a program with a connection's access token in its environment",
		Long: `Runs the program with the access token in ` + tokenVariable + `, the base URL of the API in
` + apiVariable + ` and, if the connection is for one company, its id in ` + companyVariable + `.
The token is in the program's environment only, not in your shell or an argument list. The
program replaces tokenturn: it gets the signals, and standard input and output are its own.
tokenturn exits with the program's exit code. The program does not see later rotations: if
it runs for long, it must get the token again.

A token that is valid for less than a minute (short-lived tokens: a quarter of their
lifetime) is renewed first. --min-ttl asks for more life, and fails without it. --no-renew
takes the token as it is.

Without a token the program does not run. If a rotation is in progress, tokenturn waits a
moment for it. Exits with 3 if a person must give consent, 4 if there is no such
connection, 5 if the token has expired and cannot be renewed now or the new one is not
published yet, 126 if the program cannot be run and 127 if it cannot be found.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 1 || len(args) < 2 {
				return usageError(cmd, fmt.Errorf("usage: %s", cmd.UseLine()))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := token.ParseConnection(args[0])
			if err != nil {
				return usageError(cmd, err)
			}
			if !regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`).MatchString(variable) {
				return usageError(cmd, errors.New("--variable takes the name of an environment variable"))
			}
			path, err := findCommand(args[1])
			if err != nil {
				return err
			}
			doc, err := c.readToken(cmd.Context(), cmd, conn, renew)
			if err != nil {
				return err
			}
			err = syscall.Exec(path, args[1:], withToken(c.environ, variable, doc))
			return exitf(cannotRun, "running %s: %w", path, err)
		}}
	renew.flags(cmd)
	cmd.Flags().StringVar(&variable, "variable", variable, "environment variable that gets the token")
	return c.withExamples(cmd,
		example{"Run a program with the access token in its environment",
			"tokenturn token exec sandbox/acme -- ./nightly-report"},
		example{"Call the API without the token on a command line",
			`tokenturn token exec sandbox/acme --min-ttl 30m -- bash -c
'curl -H @- "$PROCORE_API_URL/rest/v1.0/me" <<<"Authorization: Bearer $PROCORE_ACCESS_TOKEN"'`})
}

// findCommand looks first, so that no rotation is made for a program that does not exist.
func findCommand(name string) (string, error) {
	path, err := exec.LookPath(name)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "", exitf(cannotRun, "running %s: %w", name, err)
	case err != nil:
		return "", exitf(commandMissing, "finding the program: %w", err)
	}
	return path, nil
}

// withToken returns the environment with the token, API and company of doc, and without
// those of another connection.
func withToken(environ []string, variable string, doc token.Document) []string {
	set := map[string]string{apiVariable: doc.APIURL, companyVariable: doc.CompanyID}
	set[variable] = doc.AccessToken.Reveal()
	environ = slices.DeleteFunc(slices.Clone(environ), func(assignment string) bool {
		name, _, _ := strings.Cut(assignment, "=")
		_, replaced := set[name]
		return replaced
	})
	for name, value := range set {
		if value != "" {
			environ = append(environ, name+"="+value)
		}
	}
	return environ
}
