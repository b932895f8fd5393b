package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/procore"
)

// completionCommand gives cobra's own command for shell scripts the same behavior as all others.
func (c *cli) completionCommand(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	completion, _, _ := root.Find([]string{"completion"})
	wantVerb(completion)
	examples := map[string]example{
		"bash":       {"Complete commands in this shell", "source <(tokenturn completion bash)"},
		"zsh":        {"Install for new shells", `tokenturn completion zsh > "${fpath[1]}/_tokenturn"`},
		"fish":       {"Complete commands in this shell", "tokenturn completion fish | source"},
		"powershell": {"Complete commands in this shell", "tokenturn completion powershell | Out-String | Invoke-Expression"},
	}
	for _, shell := range completion.Commands() {
		c.withExamples(shell, examples[shell.Name()])
	}
	c.withExamples(completion, examples["bash"])
}

// completeArguments sets up shell completion for the arguments of cmd and its verbs, by the
// names of the arguments in their usage.
func (c *cli) completeArguments(cmd *cobra.Command) {
	switch {
	case strings.Contains(cmd.Use, "ENV/NAME"):
		cmd.ValidArgsFunction = c.completeConnections
	case strings.Contains(cmd.Use, "NAME") && keepsProfiles(cmd) && cmd.Name() != "add":
		cmd.ValidArgsFunction = c.completeProfiles
	case strings.Contains(cmd.Use, "ENV"):
		cmd.ValidArgsFunction = completeEnvironments
	case strings.Contains(cmd.Use, "ID"):
		cmd.ValidArgsFunction = c.completeInvitations
	}
	for _, verb := range cmd.Commands() {
		c.completeArguments(verb)
	}
}

// completeConnections offers the existing connections with their status. If they cannot be
// read it offers none: completion cannot show an error.
func (c *cli) completeConnections(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if len(args) == 0 && c.chooseStore(cmd) == nil {
		_ = c.with(cmd.Context(), func(in *installation) error {
			records, err := in.ledger.List(cmd.Context())
			for _, r := range records {
				names = append(names, cobra.CompletionWithDesc(r.Connection.String(), string(r.Status)))
			}
			return err
		})
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (c *cli) completeInvitations(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var ids []string
	if len(args) == 0 && c.chooseStore(cmd) == nil {
		_ = c.with(cmd.Context(), func(in *installation) error {
			list, err := in.invitations(cmd.Context())
			for _, i := range list {
				ids = append(ids, cobra.CompletionWithDesc(i.ID, i.Connection.String()+", "+i.State))
			}
			return err
		})
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

func completeEnvironments(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if len(args) == 0 {
		for _, e := range procore.Environments() {
			names = append(names, cobra.CompletionWithDesc(e.Name, e.LoginURL))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeProfiles offers the profiles of config.toml with their stacks.
func (c *cli) completeProfiles(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if all, err := c.readProfiles(); err == nil && len(args) == 0 {
		for _, name := range slices.Sorted(maps.Keys(all.Profiles)) {
			names = append(names, cobra.CompletionWithDesc(name, all.Profiles[name].Stack))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
