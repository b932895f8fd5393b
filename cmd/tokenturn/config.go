package main

import "github.com/spf13/cobra"

func (c *cli) configCommand() *cobra.Command {
	return c.noun("config", "Show the settings that commands use", "", c.configShow())
}
