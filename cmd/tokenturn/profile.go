package main

import "github.com/spf13/cobra"

func (c *cli) profileCommand() *cobra.Command {
	return c.noun("profile", "Keep names for installations in AWS",
		`A profile is a name for an installation in AWS: its CloudFormation stack, and if need be its
region and an AWS profile with credentials. Profiles are in ~/.config/tokenturn/config.toml (or
$XDG_CONFIG_HOME/tokenturn/config.toml) and contain no secrets.

Commands work on the profile in use, or on the one that --use names. Environment variables
win over the profile in use; flags win over both. If the environment has TOKENTURN_TABLE and
TOKENTURN_SEAL_KEY, the profile in use does not count. One of them that belongs to another
installation than the profile in use is an error.`,
		c.profileAdd(), c.profileUse(), c.profileList(), c.profileRemove())
}

// profileAnswer describes a profile.
type profileAnswer struct {
	Name       string `json:"name"`
	Stack      string `json:"stack"`
	Region     string `json:"region,omitempty"`
	AWSProfile string `json:"aws_profile,omitempty"`
	InUse      bool   `json:"in_use"`
}

func (p profiles) answer(name string) profileAnswer {
	one := p.Profiles[name]
	return profileAnswer{name, one.Stack, one.Region, one.AWSProfile, name == p.Use}
}
