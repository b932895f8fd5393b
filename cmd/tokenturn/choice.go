package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// choice says which installation in AWS a command works on.
type choice struct {
	profile    chosen // of config.toml
	stack      chosen // of CloudFormation; empty: the environment has all settings
	region     chosen // empty: as the AWS SDK finds it
	awsProfile chosen // the same
}

// chosen is a value and where it came from.
type chosen struct{ value, source, from string }

// The sources of values. They are part of the answer of `config show`.
const (
	fromFlag        = "flag"
	fromEnvironment = "environment"
	fromProfile     = "profile"
	fromStack       = "stack"
	fromAWS         = "aws" // the configuration of the AWS SDK
	byDefault       = "default"
)

// String names the source in words.
func (v chosen) String() string {
	switch {
	case v.source == fromStack:
		return "stack output " + v.from
	case filepath.IsAbs(v.from):
		return "in use, by " + v.from
	case v.source == fromAWS:
		return "the configuration of AWS"
	case v.from == "":
		return v.source
	}
	return v.source + " " + v.from
}

// selectionFlags choose an installation in AWS.
var selectionFlags = []string{"stack", "use", "region", "profile"}

// choose decides which installation in AWS the command works on: flags win over the
// environment, and the environment over the profile in use.
func (c *cli) choose() (choice, error) {
	var ch choice
	if c.stack != "" {
		ch.stack = chosen{c.stack, fromFlag, "--stack"}
	}
	if c.stack == "" && (c.use != "" || !c.hasSettings()) {
		all, err := c.readProfiles()
		if err != nil {
			return choice{}, err
		}
		if name := cmp.Or(c.use, all.Use); name != "" {
			p, err := all.inUse()
			if c.use != "" {
				p, err = all.named(name)
			}
			if err != nil {
				return choice{}, err
			}
			ch.profile = chosen{name, fromProfile, all.path}
			if c.use != "" {
				ch.profile = chosen{name, fromFlag, "--use"}
			}
			from := func(value string) chosen { return chosen{value, fromProfile, name} }
			ch.stack, ch.region, ch.awsProfile = from(p.Stack), from(p.Region), from(p.AWSProfile)
		}
	}
	if c.use == "" { // what --use names wins over the environment
		ch.region = c.unlessSet(ch.region, "AWS_REGION", "AWS_DEFAULT_REGION")
		ch.awsProfile = c.unlessSet(ch.awsProfile, "AWS_PROFILE", "AWS_ACCESS_KEY_ID")
	}
	if c.region != "" {
		ch.region = chosen{c.region, fromFlag, "--region"}
	}
	if c.awsProfile != "" {
		ch.awsProfile = chosen{c.awsProfile, fromFlag, "--profile"}
	}
	return ch, nil
}

// hasSettings reports whether the environment has every setting that an installation in AWS
// needs. Then a profile that is merely in use adds nothing: half of one installation and
// half of another would be worse than either.
func (c *cli) hasSettings() bool {
	return c.getenv("TOKENTURN_TABLE") != "" && c.getenv("TOKENTURN_SEAL_KEY") != ""
}

// unlessSet leaves to the AWS SDK what it reads from one of its variables.
func (c *cli) unlessSet(v chosen, variables ...string) chosen {
	if slices.ContainsFunc(variables, func(name string) bool { return c.getenv(name) != "" }) {
		return chosen{}
	}
	return v
}

// explicit reports whether a flag names the installation. Then its settings win over
// variables of the environment, which may be another installation's.
func (ch choice) explicit() bool {
	return ch.stack.value != "" && (ch.stack.source == fromFlag || ch.profile.source == fromFlag)
}

// chooseStore decides which store a command works on.
func (c *cli) chooseStore(cmd *cobra.Command) error {
	changed := cmd.Flags().Changed
	i := slices.IndexFunc(selectionFlags, func(name string) bool { return changed(name) })
	selects := i >= 0 && !addsProfile(cmd)
	if keepsProfiles(cmd) && !addsProfile(cmd) {
		for _, name := range append([]string{"store", "data"}, selectionFlags...) {
			if changed(name) {
				return usageError(cmd, fmt.Errorf("--%s cannot be used here: %s works on config.toml, and on no installation",
					name, cmd.CommandPath()))
			}
		}
	}
	switch {
	case changed("store") && c.store != "embedded" && c.store != "aws":
		return usageError(cmd, fmt.Errorf("there is no store %q; --store takes embedded or aws", c.store))
	case !changed("store") && (changed("data") || cmd.Name() == "serve"):
		c.store = "embedded"
	case !changed("store") && selects:
		c.store = "aws"
	case !changed("store") && !isStoreless(cmd):
		var err error
		if c.store, err = c.usualStore(); err != nil {
			return err
		}
	}
	switch {
	case changed("data") && c.store == "aws":
		return usageError(cmd, fmt.Errorf("--data belongs to the embedded store and cannot be used with --store aws"))
	case changed("data") && c.data == "":
		return usageError(cmd, fmt.Errorf("--data is empty; name a directory or leave it out"))
	case selects && c.store == "embedded":
		return usageError(cmd, fmt.Errorf("--%s belongs to an installation in AWS and cannot be used with the embedded store",
			selectionFlags[i]))
	case changed("stack") && changed("use"):
		return usageError(cmd, fmt.Errorf("--stack and --use both name an installation; use one of them"))
	}
	c.selected = !isStoreless(cmd)
	return c.checkSelection(cmd)
}

// checkSelection reports a flag that AWS or config.toml could not have.
func (c *cli) checkSelection(cmd *cobra.Command) error {
	p := profile{Stack: c.stack, Region: c.region}
	if !cmd.Flags().Changed("stack") {
		p.Stack = "any"
	}
	if err := p.check(); err != nil {
		return usageError(cmd, fmt.Errorf("the command line %w", err))
	}
	for name, value := range map[string]string{"region": c.region, "profile": c.awsProfile} {
		if cmd.Flags().Changed(name) && value == "" {
			return usageError(cmd, fmt.Errorf("--%s is empty; name one or leave it out", name))
		}
	}
	if cmd.Flags().Changed("use") {
		if _, err := parseProfile(c.use); err != nil {
			return usageError(cmd, fmt.Errorf("--use: %w", err))
		}
	}
	return nil
}

// usualStore is aws where the settings for it are, so that a command that a message names
// does what the message says, as it is.
func (c *cli) usualStore() (string, error) {
	if c.getenv("TOKENTURN_TABLE") != "" {
		return "aws", nil
	}
	all, err := c.readProfiles()
	if err != nil || all.Use == "" {
		return "embedded", err
	}
	return "aws", nil
}

// thisCommand is how to run the command for the same installation, in a shell with the same
// environment.
func (c *cli) thisCommand() string {
	command := "tokenturn"
	// With a damaged config.toml, only a command that names its store works.
	usual, err := c.usualStore()
	isUsual := err == nil && usual == c.store
	if c.store == "aws" {
		if c.stack == "" && c.use == "" && !isUsual {
			command += " --store aws"
		}
		for _, flag := range [][2]string{{"--stack", c.stack}, {"--use", c.use}, {"--region", c.region},
			{"--profile", c.awsProfile}} {
			if flag[1] != "" {
				command += " " + flag[0] + " " + shellWord(flag[1])
			}
		}
		return command
	}
	switch {
	case c.data != "":
		dir, err := c.dataDir()
		if err != nil {
			dir = c.data
		}
		return command + " --data " + shellWord(dir)
	case !isUsual:
		return command + " --store embedded"
	}
	return command
}

// printedCommand is a command in a text, and what precedes it if it only names a command's
// help. The demo has a store of its own.
var printedCommand = regexp.MustCompile(
	`(See: )?\btokenturn ((app|connection|invitation|token|doctor|fsck|console|config|serve|setup)( --demo)?)\b`)

// withStore adds to the commands in a text the flags that choose the installation of this
// command, so that they work as they are.
func (c *cli) withStore(text string) string {
	if !c.selected {
		return text
	}
	command := c.thisCommand()
	if command == "tokenturn" {
		return text
	}
	return printedCommand.ReplaceAllStringFunc(text, func(found string) string {
		if strings.HasPrefix(found, "See: ") || strings.HasSuffix(found, " --demo") {
			return found
		}
		return command + strings.TrimPrefix(found, "tokenturn")
	})
}

// isStoreless reports whether a command reads no installation, so that a damaged
// config.toml does not matter to it or is its own concern.
func isStoreless(cmd *cobra.Command) bool {
	words := strings.Fields(cmd.CommandPath())
	return len(words) < 2 || slices.Contains([]string{"help", "completion", "man", "profile", "__complete",
		"__completeNoDesc"}, words[1])
}

// keepsProfiles reports whether a command works on config.toml, and on no installation.
func keepsProfiles(cmd *cobra.Command) bool {
	return strings.HasPrefix(cmd.CommandPath(), "tokenturn profile ")
}

// addsProfile reports whether a command takes the flags that name an installation as data.
func addsProfile(cmd *cobra.Command) bool { return keepsProfiles(cmd) && cmd.Name() == "add" }
