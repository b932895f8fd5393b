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
	"time"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// Variables that a command gets from `token exec`.
const (
	tokenVariable   = "PROCORE_ACCESS_TOKEN" // unless --variable names another
	apiVariable     = "PROCORE_API_URL"
	companyVariable = "PROCORE_COMPANY_ID"
)

// What shells exit with if a command cannot be run, or found
// (https://pubs.opengroup.org/onlinepubs/9799919799/utilities/env.html).
const (
	cannotRun      = 126
	commandMissing = 127
)

func (c *cli) tokenExec() *cobra.Command {
	var minTTL time.Duration
	variable := tokenVariable
	cmd := &cobra.Command{Use: "exec ENV/NAME [flags] -- COMMAND [ARGUMENT...]", DisableFlagsInUseLine: true,
		Short: "Run one command with a connection's access token in its environment",
		Long: `Runs the command with the access token in ` + tokenVariable + `, the API's address in
` + apiVariable + ` and the company, if the connection is for one, in ` + companyVariable + `.
Nothing else gets them, neither the shell that calls nor an argument list. The command
takes tokenturn's place: signals reach it, standard input and output are its own,
and its exit code is the exit code. It does not learn of later rotations: what runs for
long must ask for the token again.

If there is no token the command is not run. A rotation under way is waited for, for a
moment. Exits with 3 if a person must consent, 4 if there is no such connection, 5 if the
token has expired or is not replaced yet, 126 if the command cannot be run and 127 if it
cannot be found.`,
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
			doc, err := c.readToken(cmd.Context(), cmd, conn, minTTL)
			if err != nil {
				return err
			}
			err = syscall.Exec(path, args[1:], withToken(c.environ, variable, doc))
			return exitf(cannotRun, "running %s: %w", path, err)
		}}
	minTTLFlag(cmd, &minTTL)
	cmd.Flags().StringVar(&variable, "variable", variable, "environment variable for the token")
	return c.withExamples(cmd,
		example{"Run a program with the access token in its environment",
			"tokenturn token exec sandbox/acme -- ./nightly-report"},
		example{"Call the API without the token on a command line",
			`tokenturn token exec sandbox/acme --min-ttl 30m -- bash -c
'curl -H @- "$PROCORE_API_URL/rest/v1.0/me" <<<"Authorization: Bearer $PROCORE_ACCESS_TOKEN"'`})
}

// findCommand looks before a token may have to be made for nothing.
func findCommand(name string) (string, error) {
	path, err := exec.LookPath(name)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "", exitf(cannotRun, "running %s: %w", name, err)
	case err != nil:
		return "", exitf(commandMissing, "looking for the command: %w", err)
	}
	return path, nil
}

// withToken returns the environment with what a command needs of doc, and
// nothing that it had of another connection.
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
