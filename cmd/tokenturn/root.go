package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/release"
)

// cli holds the streams and the environment of one invocation, and the flags that all
// commands share.
type cli struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string // in the form of os.Environ

	store string
	data  string
	json  bool
	log   string // one of logFormats; empty: see logFormat
	// Which installation in AWS: a stack, or a profile of config.toml.
	stack, use         string
	region, awsProfile string
	configured         *configuration // nil: not yet read
	selected           bool           // the flags are read, and the command works on an installation

	examples map[*cobra.Command][]example
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, environ []string) int {
	c := &cli{stdin: stdin, stdout: stdout, stderr: stderr, environ: environ}
	root := c.root()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil {
		if c.configured != nil {
			err = c.configured.explain(err)
		}
		fmt.Fprintln(stderr, "tokenturn:", c.withStore(err.Error()))
	}
	return exitCode(err)
}

func (c *cli) root() *cobra.Command {
	root := c.noun("tokenturn", "Keep Procore OAuth tokens fresh",
		`tokenturn uses each single-use refresh token exactly once, saves every new token pair
before doing anything else, and gives other programs a valid access token.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a person must give consent,
4 not found, 5 try again later, 130 interrupted at a question.`,
		c.setupCommand(), c.serveCommand(), c.consoleCommand(), c.appCommand(), c.connectionCommand(), c.invitationCommand(),
		c.tokenCommand(), c.doctorCommand(), c.fsckCommand(), c.profileCommand(), c.configCommand(), c.manCommand(),
		c.workerCommand())
	c.withExamples(root,
		example{"Try it without a Procore account", "tokenturn serve --demo"},
		example{"Set up the first connection step by step", "tokenturn setup sandbox/acme"},
		example{"Store the app credentials of the developer sandbox", "tokenturn app set sandbox"},
		example{"Create a link for the person who authorizes", "tokenturn connection invite sandbox/acme"},
		example{"Print a valid access token", "tokenturn token print sandbox/acme"})
	root.Version = release.Version()
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(usageError)
	// By default cobra leaves out the short description of a command that has a long one.
	root.SetHelpTemplate("{{.Short}}.\n\n{{with .Long}}{{. | trimTrailingWhitespaces}}\n\n{{end}}{{.UsageString}}")
	root.SetVersionTemplate("{{.Version}}\n")
	if width := columns(c.stdout); width > 0 {
		fitHelp(root, width)
	}
	flags := root.PersistentFlags()
	store := "embedded"
	if c.getenv("TOKENTURN_TABLE") != "" {
		store = "aws"
	}
	flags.StringVar(&c.store, "store", store, "where tokenturn stores its data: embedded (on this machine) or "+
		"aws; aws is the default with --stack or --use, where TOKENTURN_TABLE is set, and where a profile is in use")
	flags.StringVar(&c.stack, "stack", "", "CloudFormation stack of an installation in AWS, to read its settings from")
	flags.StringVar(&c.use, "use", "", "profile of an installation in AWS (see tokenturn profile)")
	flags.StringVar(&c.region, "region", "", "AWS region of the installation")
	flags.StringVar(&c.awsProfile, "profile", "", "AWS profile with the credentials to use")
	flags.StringVar(&c.data, "data", "", "directory of the embedded store (default $XDG_DATA_HOME/tokenturn or "+
		"~/.local/share/tokenturn)")
	flags.BoolVar(&c.json, "json", false, "print the result as JSON")
	flags.StringVar(&c.log, "log", "", "`format` of log lines: sentences (default in a terminal), logfmt (default "+
		"elsewhere) or json (default with --json)")
	_ = root.RegisterFlagCompletionFunc("log", cobra.FixedCompletions(logFormats, cobra.ShellCompDirectiveNoFileComp))
	root.PersistentPreRunE = c.checkFlags
	c.completeArguments(root)
	suggestFor(root)
	_ = root.RegisterFlagCompletionFunc("use", c.completeProfiles) // fails for unknown flags only
	c.completionCommand(root)
	root.InitDefaultHelpCmd()
	help, _, _ := root.Find([]string{"help"})
	help.Long = "Shows the same text as the --help flag of that command."
	c.withExamples(help, example{"Show the help of a command", "tokenturn help connection authorize"})
	help.Args = func(cmd *cobra.Command, args []string) error { // cobra shows the help of the nearest command instead
		if found, rest, err := root.Find(args); err != nil || len(rest) > 0 {
			near := ""
			if len(rest) > 0 {
				near = suggestCommand(found, rest[0])
			}
			return usageError(found, fmt.Errorf("%s has no command %q%s", root.Name(), strings.Join(args, " "), near))
		}
		return nil
	}
	return root
}

func (c *cli) checkFlags(cmd *cobra.Command, _ []string) error {
	if c.log != "" && !slices.Contains(logFormats, c.log) {
		return usageError(cmd, fmt.Errorf("--log takes %s", strings.Join(logFormats, ", ")))
	}
	return c.chooseStore(cmd)
}

// say writes a message for the person to standard error.
func (c *cli) say(format string, args ...any) {
	fmt.Fprintln(c.stderr, c.withStore(fmt.Sprintf(format, args...)))
}

// answer writes the result v to standard output: as JSON with --json, otherwise as text
// writes it.
func (c *cli) answer(v any, text func(io.Writer)) error {
	var out bytes.Buffer
	if c.json {
		encoder := json.NewEncoder(&out)
		encoder.SetEscapeHTML(false) // so that links stay readable
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(v); err != nil {
			return fmt.Errorf("encoding the answer as JSON: %w", err)
		}
	} else {
		words := page{width: columns(c.stdout), complete: c.withStore}
		text(&words)
		out.WriteString(c.withStore(words.String()))
	}
	if _, err := c.stdout.Write(out.Bytes()); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}

// getenv returns the value of a variable. If it is set more than once, the last value counts.
func (c *cli) getenv(name string) string {
	value := ""
	for _, assignment := range c.environ {
		if v, ok := strings.CutPrefix(assignment, name+"="); ok {
			value = v
		}
	}
	return value
}

// The formats of log lines.
const (
	sentences = "sentences" // for people
	logfmt    = "logfmt"
	jsonLines = "json"
)

var logFormats = []string{sentences, logfmt, jsonLines}

// logFormat is the format of log lines: sentences where a person reads them, unless --log
// names another one.
func (c *cli) logFormat() string {
	switch {
	case c.log != "":
		return c.log
	case c.json:
		return jsonLines
	case isTerminal(c.stderr):
		return sentences
	}
	return logfmt
}

// logger writes lines of at least this level to standard error.
func (c *cli) logger(level slog.Level) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	switch c.logFormat() {
	case jsonLines:
		return slog.New(slog.NewJSONHandler(c.stderr, options))
	case sentences:
		return slog.New(narration{level: level, narrator: &narrator{out: c.stderr}, command: c.thisCommand()})
	}
	return slog.New(slog.NewTextHandler(c.stderr, options))
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// oneLine keeps a cell of a table in its line.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
