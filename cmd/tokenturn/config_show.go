package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/config"
)

func (c *cli) configShow() *cobra.Command {
	var export bool
	cmd := verb("show", "Show which installation commands work on, and where each setting comes from",
		`Reads the stack's outputs if a stack is named, as every command does; that also shows that
the credentials, the region and the stack are right. Passwords are not shown.

--export prints the settings as export commands for a shell, for programs that read variables.`,
		func(ctx context.Context, cmd *cobra.Command) error {
			if export && c.json {
				return usageError(cmd, errors.New("--export and --json exclude each other"))
			}
			a, problems := c.configAnswer(ctx)
			if a == nil {
				return problems
			}
			text := a.print
			if export {
				text = a.printExports
			}
			return cmp.Or(c.answer(a, text), problems)
		})
	cmd.Flags().BoolVar(&export, "export", false, "print export commands for a shell")
	return c.withExamples(cmd,
		example{"Show the settings", "tokenturn config show"},
		example{"Show those of a stack", "tokenturn --stack tokenturn-production config show"},
		example{"Set the variables of this shell", `eval "$(tokenturn --use acme config show --export)"`})
}

// configAnswer is what `config show --json` answers.
type configAnswer struct {
	Store        string `json:"store"`
	Installation string `json:"installation"` // id of the installation in AWS, or directory of the embedded store
	// Choice is how the installation was chosen.
	Choice   []configValue `json:"choice"`
	Settings []configValue `json:"settings"`
}

// configValue is a value and where it comes from.
type configValue struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"source"` // flag, environment, profile, stack, aws or default
	From   string `json:"from,omitempty"`

	words string
}

// configAnswer describes the configuration, also if there are problems with the settings.
// It is nil if the installation cannot be found out.
func (c *cli) configAnswer(ctx context.Context) (*configAnswer, error) {
	if c.store == "embedded" {
		dir, err := c.dataDir()
		if err != nil {
			return nil, err
		}
		where := chosen{dir, byDefault, ""}
		switch {
		case c.data != "":
			where = chosen{dir, fromFlag, "--data"}
		case strings.HasPrefix(dir, c.getenv("XDG_DATA_HOME")) && c.getenv("XDG_DATA_HOME") != "":
			where = chosen{dir, fromEnvironment, "XDG_DATA_HOME"}
		}
		a := &configAnswer{Store: c.store, Installation: dir, Choice: []configValue{where.as("data")}}
		a.Settings = settingValues(config.Describe(config.Local, c.environ), nil)
		_, err = config.Read(config.Local, c.environ)
		return a, asUsage(err)
	}
	conf, err := c.configure(ctx)
	if problems, ok := errors.AsType[settingsError](err); ok {
		return &configAnswer{Store: c.store, Choice: []configValue{},
			Settings: settingValues(config.Describe(config.Operator, c.environ), nil)}, asUsage(problems)
	}
	if err != nil {
		return nil, err
	}
	a := &configAnswer{Store: c.store, Choice: conf.chosenValues(c)}
	described := config.Describe(config.Operator, conf.environ)
	a.Settings = settingValues(described, conf.sources)
	for _, s := range described {
		if s.Name == "TOKENTURN_STACK" {
			a.Installation = s.Value
		}
	}
	_, err = conf.settings()
	return a, err
}

func asUsage(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{usage, err}
}

// chosenValues says how the installation was chosen: what is not set is left out.
func (conf *configuration) chosenValues(c *cli) []configValue {
	region := conf.region
	if region.value == "" {
		region = chosen{conf.aws.Region, fromAWS, ""}
		for _, name := range []string{"AWS_DEFAULT_REGION", "AWS_REGION"} {
			if c.getenv(name) == conf.aws.Region {
				region = chosen{conf.aws.Region, fromEnvironment, name}
			}
		}
	}
	awsProfile := conf.awsProfile
	if name := c.getenv("AWS_PROFILE"); awsProfile.value == "" && name != "" && conf.awsProfileName() == name {
		awsProfile = chosen{name, fromEnvironment, "AWS_PROFILE"}
	}
	values := []configValue{}
	for _, v := range []struct {
		name string
		chosen
	}{{"profile", conf.profile}, {"stack", conf.stack}, {"region", region}, {"aws_profile", awsProfile}} {
		if v.value != "" {
			values = append(values, v.as(v.name))
		}
	}
	return values
}

func (v chosen) as(name string) configValue {
	return configValue{Name: name, Value: v.value, Source: v.source, From: v.from, words: v.String()}
}

// settingValues says where each setting comes from: sources has those of the stack.
func settingValues(described []config.Setting, sources map[string]chosen) []configValue {
	values := make([]configValue, len(described))
	for i, s := range described {
		from, ok := sources[s.Name]
		switch {
		case ok:
		case s.Set:
			from = chosen{source: fromEnvironment}
		default:
			from = chosen{source: byDefault}
		}
		from.value = s.Value
		values[i] = from.as(s.Name)
		if !s.Valid {
			values[i].words += ", not valid and not shown"
		}
	}
	return values
}

func (a *configAnswer) print(w io.Writer) {
	t := table{head: []string{"SETTING", "VALUE", "SOURCE"}}
	t.row("installation", orDash(a.Installation), "store "+a.Store)
	for _, v := range append(a.Choice[:len(a.Choice):len(a.Choice)], a.Settings...) {
		t.row(strings.ReplaceAll(v.Name, "aws_profile", "AWS profile"), orDash(v.Value), v.words)
	}
	t.print(w)
}

// printExports prints what is not a default. A proxy may have a password, which is not
// shown, so it stays as the environment has it.
func (a *configAnswer) printExports(w io.Writer) {
	export := func(name, value string) {
		fmt.Fprintf(w, "export %s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`))
	}
	variables := map[string]string{"region": "AWS_REGION", "aws_profile": "AWS_PROFILE"}
	for _, v := range a.Choice {
		if name := variables[v.Name]; name != "" {
			export(name, v.Value)
		}
	}
	for _, v := range a.Settings {
		if v.Source != byDefault && v.Value != "" && v.Name != "TOKENTURN_PROXY" {
			export(v.Name, v.Value)
		}
	}
}
