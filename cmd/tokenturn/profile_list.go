package main

import (
	"context"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"
)

func (c *cli) profileList() *cobra.Command {
	return c.withExamples(verb("list", "List the profiles", "",
		func(context.Context, *cobra.Command) error {
			all, err := c.readProfiles()
			if err != nil {
				return err
			}
			list := []profileAnswer{}
			for _, name := range slices.Sorted(maps.Keys(all.Profiles)) {
				list = append(list, all.answer(name))
			}
			if len(list) == 0 {
				c.say("There are no profiles yet. Add one with: tokenturn profile add NAME --stack STACK --region REGION")
			}
			return c.answer(list, func(w io.Writer) { printProfiles(w, list) })
		}),
		example{"List the profiles", "tokenturn profile list"})
}

func printProfiles(w io.Writer, list []profileAnswer) {
	if len(list) == 0 {
		return
	}
	t := table{head: []string{"PROFILE", "STACK", "REGION", "AWS PROFILE", "IN USE"}}
	for _, p := range list {
		inUse := ""
		if p.InUse {
			inUse = "yes"
		}
		t.row(p.Name, p.Stack, orDash(p.Region), orDash(p.AWSProfile), orDash(inUse))
	}
	t.print(w)
}
