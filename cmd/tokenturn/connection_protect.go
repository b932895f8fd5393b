package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/secretsmanager"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func (c *cli) connectionProtect() *cobra.Command {
	var guard secretsmanager.Guard
	var all, show bool
	cmd := &cobra.Command{Use: "protect {ENV/NAME | --all}", Short: "Attach a policy to a connection's secret, in AWS",
		Long: `Attaches a resource policy to the secret, or to those of all active connections. It
denies everybody but the rotate function to write the secret and to read any version but
the current one, whatever their own policies allow. The principals of --recovery keep
every right, to operate and to take the policy off again; you must be one of them. So
does the account's root user.

Roles and users are known by their names, which are unique in an account. Their path may
be left out: yours is role/NAME where "aws sts get-caller-identity" shows assumed-role/NAME.

A reader with one of AWS's caching libraries asks for the version by its id, and needs
--by-version: no policy can tell by its id whether a version is the current one.

The rotate function makes a secret when its connection is first published, so protect it
after that. It can be done again at any time, with other principals, say. A policy that
something else has attached stays as it is, and that is an error.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) == 1) || len(args) > 1 {
				return usageError(cmd, fmt.Errorf("usage: %s", cmd.UseLine()))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			policy, err := guard.Policy()
			if err != nil {
				return usageError(cmd, err)
			}
			var one token.Connection
			if !all {
				if one, err = token.ParseConnection(args[0]); err != nil {
					return usageError(cmd, err)
				}
			}
			if show {
				_, err := fmt.Fprintln(c.stdout, policy)
				return err
			}
			if c.store != "aws" {
				return usageError(cmd, errors.New("only secrets in AWS have resource policies; add --store aws"))
			}
			return c.with(cmd.Context(), func(in *installation) error { return c.protect(cmd.Context(), in, guard, one) })
		}}
	cmd.Flags().StringVar(&guard.Writer, "rotate-role", "", "ARN of the rotate function's role (the stack's output "+
		"RotateRoleArn)")
	cmd.Flags().StringArrayVar(&guard.Recovery, "recovery", nil, "ARN of a role or user that keeps every right; yours, "+
		"and at best another (repeatable)")
	cmd.Flags().StringArrayVar(&guard.ByVersion, "by-version", nil, "ARN of a reader that may ask for versions by "+
		"their id, old ones included (repeatable)")
	cmd.Flags().BoolVar(&all, "all", false, "every active connection")
	cmd.Flags().BoolVar(&show, "print", false, "print the policy and attach nothing")
	return c.withExamples(cmd,
		example{"Protect the secrets of all active connections",
			`tokenturn --store aws connection protect --all
--rotate-role arn:aws:iam::111122223333:role/tokenturn-RotateRole-ABC
--recovery arn:aws:iam::111122223333:role/Operators
--recovery arn:aws:iam::111122223333:role/BreakGlass`},
		example{"Print the policy and attach nothing",
			`tokenturn connection protect production/acme --print
--rotate-role arn:aws:iam::111122223333:role/tokenturn-RotateRole-ABC
--recovery arn:aws:iam::111122223333:role/Operators`})
}

// protectAnswer is one element of what `connection protect --json` answers.
type protectAnswer struct {
	Connection token.Connection `json:"connection"`
	Protected  bool             `json:"protected"`
	Detail     string           `json:"detail,omitempty"` // why not
}

// protect attaches the guard's policy to the secret of one connection, or of all
// active ones if that is zero. One that fails does not keep it from the others.
func (c *cli) protect(ctx context.Context, in *installation, guard secretsmanager.Guard, one token.Connection) error {
	caller, err := in.caller(ctx)
	if err != nil {
		return err
	}
	if !guard.Keeps(caller) {
		return fmt.Errorf("you are %s, and with this policy you could neither operate the connection nor take the policy "+
			"off again: name your role or user with --recovery too", caller)
	}
	connections := []token.Connection{one}
	if one.IsZero() {
		if connections, err = in.active(ctx); err != nil {
			return err
		}
	} else if _, _, err := in.load(ctx, one); err != nil {
		return err
	}
	answers, errs := []protectAnswer{}, []error{}
	code := notFound // unless something else went wrong
	for _, conn := range connections {
		a := protectAnswer{Connection: conn, Protected: true}
		if err := explainProtect(conn, in.protections.Attach(ctx, conn, guard)); err != nil {
			a.Protected, a.Detail = false, err.Error()
			errs = append(errs, err)
			if exitCode(err) != notFound {
				code = failed
			}
		}
		answers = append(answers, a)
	}
	if err := c.answer(answers, func(w io.Writer) { printProtected(w, answers) }); err != nil || len(errs) == 0 {
		return err
	}
	return &exitError{code, errors.Join(errs...)}
}

// active lists the connections that are kept fresh.
func (in *installation) active(ctx context.Context) ([]token.Connection, error) {
	records, err := in.ledger.List(ctx)
	var connections []token.Connection
	for _, r := range records {
		if r.Status == rotation.Active {
			connections = append(connections, r.Connection)
		}
	}
	return connections, err
}

func explainProtect(conn token.Connection, err error) error {
	switch {
	case errors.Is(err, rotation.ErrNoSecret):
		return exitf(notFound, "%s has no secret yet; it gets one when it is first published, "+
			"after a person has allowed access", conn)
	case errors.Is(err, secretsmanager.ErrOtherPolicy):
		return fmt.Errorf("%w; it stays as it is. Add what --print shows to it by hand, or delete it: "+
			"aws secretsmanager delete-resource-policy", err)
	}
	return err
}

func printProtected(w io.Writer, answers []protectAnswer) {
	for _, a := range answers {
		if a.Protected {
			fmt.Fprintf(w, "%s is protected.\n", a.Connection)
		}
	}
}
