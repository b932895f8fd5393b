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
	cmd := &cobra.Command{Use: "protect {ENV/NAME | --all}",
		Short: "Protect a connection's secret in AWS with a resource policy",
		Long: `Attaches a resource policy to the secret of one connection or of all active connections.
Only the rotate function may then write the secret and read versions other than the
current one, whatever other policies allow. The principals of --recovery keep all rights,
to operate and to remove the policy; you must be one of them. So does the account's root
user.

The policy identifies roles and users by name, which is unique in an account. You may
leave out their path: yours is role/NAME if "aws sts get-caller-identity" shows
assumed-role/NAME.

A reader that uses one of AWS's caching libraries requests the version by its id and needs
--by-version: a policy cannot tell from the id whether a version is the current one.

The rotate function creates a secret when it first publishes the connection, so protect
the connection after that. You can repeat the command at any time, for example with other
principals. A policy that something else has attached is not changed, which is an error.`,
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
	cmd.Flags().StringArrayVar(&guard.Recovery, "recovery", nil, "ARN of a role or user that keeps all rights; yours, "+
		"and preferably one more (repeatable)")
	cmd.Flags().StringArrayVar(&guard.ByVersion, "by-version", nil, "ARN of a reader that may request versions by id, "+
		"including old ones (repeatable)")
	cmd.Flags().BoolVar(&all, "all", false, "protect every active connection")
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

// protect attaches the guard's policy to the secret of one connection, or of all active
// ones if that is zero. If one fails, it still protects the others.
func (c *cli) protect(ctx context.Context, in *installation, guard secretsmanager.Guard, one token.Connection) error {
	caller, err := in.caller(ctx)
	if err != nil {
		return err
	}
	if !guard.Keeps(caller) {
		return fmt.Errorf("you are %s, and with this policy you could neither operate the connection nor remove the "+
			"policy: name your role or user with --recovery too", caller)
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

// active lists the active connections.
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
		return exitf(notFound, "%s has no secret yet; the rotate function creates it after a person has allowed access", conn)
	case errors.Is(err, secretsmanager.ErrOtherPolicy):
		return fmt.Errorf("%w; it was not changed. Add what --print shows to it by hand, or delete it with: "+
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
