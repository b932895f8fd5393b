package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// maxSuggestions bounds a message. More names are a list, which another command prints.
const maxSuggestions = 3

// maxDifference is how many letters a mistyped name may differ.
const maxDifference = 2

// nearest returns the names that a mistyped one may mean, by cobra's measure: few letters
// differ, or the name begins with what was typed.
func nearest(typed string, names []string) []string {
	choices := &cobra.Command{SuggestionsMinimumDistance: maxDifference}
	seen := map[string]bool{}
	for _, name := range names {
		if !seen[name] && name != typed {
			choices.AddCommand(&cobra.Command{Use: name, Run: func(*cobra.Command, []string) {}})
		}
		seen[name] = true
	}
	return choices.SuggestionsFor(typed)
}

// didYouMean is the part of a message that names what was probably meant; empty if nothing
// is near. Each name gets what is before it in a command.
func didYouMean(before string, names []string) string {
	if len(names) == 0 || len(names) > maxSuggestions {
		return ""
	}
	return "; did you mean: " + before + strings.Join(names, ", "+before)
}

// suggestCommand says which command of cmd a mistyped one may mean.
func suggestCommand(cmd *cobra.Command, typed string) string {
	if cmd.HasParent() || typed != "version" {
		return didYouMean(cmd.CommandPath()+" ", cmd.SuggestionsFor(typed))
	}
	return didYouMean("", []string{cmd.Name() + " --version"})
}

// otherWords are words of other programs for a command.
var otherWords = map[string][]string{
	"connection": {"connect", "connections", "invite", "authorize", "login", "list", "rotate", "import"},
	"doctor":     {"status", "check", "health"}, "token": {"get", "print", "exec"}, "serve": {"start", "run", "server"},
	"app": {"apps", "credentials"}, "invitation": {"invitations"}, "profile": {"profiles", "use"}, "config": {"settings"},
	"connection list": {"ls"}, "connection show": {"status", "get", "describe", "info"},
	"connection authorize": {"login", "connect", "add", "create"}, "connection invite": {"connect", "add", "create"},
	"connection disconnect": {"remove", "delete", "revoke", "rm"}, "connection forget": {"remove", "delete", "rm"},
	"connection rotate": {"refresh", "renew"}, "connection history": {"log", "events"},
	"invitation revoke": {"remove", "delete", "rm"}, "invitation list": {"ls"}, "profile list": {"ls"},
	"profile remove": {"delete", "rm"}, "token print": {"get", "show"}, "app show": {"get", "list", "ls"},
}

// suggestFor gives each command below cmd the words by which people may look for it.
func suggestFor(cmd *cobra.Command) {
	_, path, _ := strings.Cut(cmd.CommandPath(), " ")
	cmd.SuggestFor, cmd.SuggestionsMinimumDistance = otherWords[path], maxDifference
	for _, verb := range cmd.Commands() {
		suggestFor(verb)
	}
}

// unknown is errUnknown with the connections that may be meant. If they cannot be listed,
// none is named: the person has another problem first.
func (in *installation) unknown(ctx context.Context, conn token.Connection) error {
	records, _ := in.ledger.List(ctx)
	var names []string
	for _, r := range records {
		names = append(names, r.Connection.String())
	}
	return errUnknown(conn, nearest(conn.String(), names)...)
}

// withoutApplication is errNoApplication with the environments that may be meant.
func (in *installation) withoutApplication(ctx context.Context, environment string) error {
	return errNoApplication(environment, nearest(environment, in.knownEnvironments(ctx))...)
}

// knownEnvironments are Procore's, those that connections have, and on one machine those with
// app credentials.
func (in *installation) knownEnvironments(ctx context.Context) (names []string) {
	names = procoreEnvironments()
	records, _ := in.ledger.List(ctx)
	for _, r := range records {
		names = append(names, r.Connection.Environment)
	}
	if in.environments != nil {
		stored, _ := in.environments(ctx)
		names = append(names, stored...)
	}
	return names
}

func procoreEnvironments() (names []string) {
	for _, e := range procore.Environments() {
		names = append(names, e.Name)
	}
	return names
}

// checkEnvironment refuses the name of an environment that does not exist: it is none of
// Procore's, no connection has it, and there are no app credentials for it.
func (in *installation) checkEnvironment(ctx context.Context, cmd *cobra.Command, name string) error {
	if _, err := token.ParseEnvironment(name); err != nil {
		return usageError(cmd, err)
	}
	if _, own := procoreEnvironment(name); own {
		return nil
	}
	if _, err := in.ledger.List(ctx); err != nil {
		return err
	}
	known := in.knownEnvironments(ctx)
	if slices.Contains(known, name) || in.hasApplication(ctx, name) {
		return nil
	}
	return usageError(cmd, fmt.Errorf("there is no environment %s%s", name, didYouMean("", nearest(name, known))))
}

// hasApplication reports whether there may be app credentials for the environment.
func (in *installation) hasApplication(ctx context.Context, environment string) bool {
	_, err := in.apps.Application(ctx, environment)
	return !errors.Is(err, rotation.ErrNoApplication)
}

// checkSetup refuses to set up a custom environment with almost the name of one of Procore's.
// It is more likely mistyped, unless there is something of it already.
func (in *installation) checkSetup(ctx context.Context, conn token.Connection) error {
	near := nearest(conn.Environment, procoreEnvironments())
	if _, own := procoreEnvironment(conn.Environment); own || len(near) == 0 || conn.IsZero() {
		return nil
	}
	if in != nil && (slices.Contains(in.knownEnvironments(ctx), conn.Environment) ||
		in.hasApplication(ctx, conn.Environment)) {
		return nil
	}
	return exitf(usage, "there is no environment %s%s; for a custom environment of that name, first store its app "+
		"credentials with: tokenturn app set %[1]s", conn.Environment, didYouMean("", near))
}
