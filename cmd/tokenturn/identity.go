package main

import (
	"errors"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// expectFlags are the flags that say who is to consent.
func expectFlags(cmd *cobra.Command, expect *rotation.Identity) {
	cmd.Flags().StringVar(&expect.Company, "company", "",
		"id of the Procore company in which the user must be able to act")
	cmd.Flags().StringVar(&expect.Login, "login", "", "e-mail address with which the user must be signed in")
	cmd.Flags().BoolVar(&expect.Repin, "repin", false, "accept another Procore user, or --company, "+
		"than the connection has had")
}

var companyForm = regexp.MustCompile(`^[0-9]{1,19}$`)

func checkExpected(cmd *cobra.Command, expect rotation.Identity) error {
	switch {
	case cmd.Flags().Changed("company") && !companyForm.MatchString(expect.Company):
		return usageError(cmd, errors.New("--company takes the number of a Procore company, such as 4264807"))
	case cmd.Flags().Changed("login") && !strings.Contains(expect.Login, "@"):
		return usageError(cmd, errors.New("--login takes the e-mail address of a Procore user"))
	}
	return nil
}

// checkPin says early what every consent would end with.
func checkPin(rec rotation.Record, expect rotation.Identity) error {
	if rec.Pin == nil || rec.Pin.Company == "" || expect.Company == "" || rec.Pin.Company == expect.Company ||
		expect.Repin {
		return nil
	}
	return exitf(usage, "%s belongs to company %s, not %s; add --repin if it is to move, or name another connection",
		rec.Connection, rec.Pin.Company, expect.Company)
}
