package main

import (
	"errors"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/tokenturn/tokenturn/pkg/consent"
	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// expectFlags are the flags that say who may give the consent.
func expectFlags(cmd *cobra.Command, expect *rotation.Identity) {
	cmd.Flags().StringVar(&expect.Company, "company", "",
		"id of the Procore company to which the user must have access")
	cmd.Flags().StringVar(&expect.CompanyName, "company-name", "",
		"name of that company, shown to people beside the id")
	cmd.Flags().StringVar(&expect.Login, "login", "", "email address of the Procore user who must give the consent")
	cmd.Flags().BoolVar(&expect.Repin, "repin", false, "accept another Procore user or --company "+
		"than the connection had so far")
}

var companyForm = regexp.MustCompile(`^[0-9]{1,19}$`)

func checkExpected(cmd *cobra.Command, expect rotation.Identity) error {
	switch {
	case cmd.Flags().Changed("company") && !companyForm.MatchString(expect.Company):
		return usageError(cmd, errors.New("--company takes the number of a Procore company, such as 4264807"))
	case consent.CheckOrganization(expect.CompanyName) != nil:
		return usageError(cmd, errors.New("--company-name takes at most 80 characters, all printable"))
	case cmd.Flags().Changed("login") && !strings.Contains(expect.Login, "@"):
		return usageError(cmd, errors.New("--login takes the email address of a Procore user"))
	}
	return nil
}

// checkPin refuses early what every consent would end with.
func checkPin(rec rotation.Record, expect rotation.Identity) error {
	if rec.Pin == nil || rec.Pin.Company == "" || expect.Company == "" || rec.Pin.Company == expect.Company ||
		expect.Repin {
		return nil
	}
	return exitf(usage, "%s belongs to company %s, not %s; add --repin to move it, or name another connection",
		rec.Connection, rec.Pin.Company, expect.Company)
}
