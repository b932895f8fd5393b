package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
)

//go:embed aws.py
var awsCommand string

// sleepCommand stands in for waiting, which takes no time here. A loop that
// would wait forever ends, because its shell ends with a command that fails.
const sleepCommand = `#!/bin/sh
echo >>waited; test $(wc -l <waited) -le 30
`

// runbook is a page of infra/runbooks and the situation that it is for. after is
// what a person does between two blocks, by the number of the block before it.
type runbook struct {
	page   string
	before func(context.Context, *trial) error
	after  map[int]func(ctx context.Context, t *trial, output string) error
	ends   func(context.Context, *trial) error
}

// runbooks are in the order in which they are tried; the last one deletes everything.
var runbooks = []runbook{
	{page: "first-deploy.md"},
	{page: "connect.md", after: map[int]func(context.Context, *trial, string) error{0: acceptInvitation},
		ends: active("sandbox/newcomer")},
	{page: "needs-consent.md", before: withdrawn, after: map[int]func(context.Context, *trial,
		string) error{2: acceptInvitation}, ends: active(connection)},
	{page: "unknown.md", before: spoiled("sandbox/lost", "unknown", procoretest.LostBefore())},
	{page: "quarantine.md", before: spoiled("sandbox/odd", "quarantined", procoretest.Rewritten(twoRefreshTokens)),
		after: map[int]func(context.Context, *trial, string) error{2: acceptInvitation}, ends: active("sandbox/odd")},
	{page: "no-heartbeat.md", ends: active(connection)},
	{page: "rotate-errors.md"},
	{page: "failed.md", ends: active(connection)},
	{page: "unpublished.md"},
	{page: "denied.md", ends: active(connection)},
	{page: "backlog.md"},
	{page: "clock.md"},
	{page: "secret-reset.md", ends: active(connection)},
	{page: "restore-table.md", after: map[int]func(context.Context, *trial, string) error{1: overtakeBackup},
		ends: active(connection)},
	{page: "lost-key.md", before: sealKeyDoomed, ends: active(connection)},
	{page: "stack-deleted.md", ends: active(connection)},
	{page: "region-loss.md", ends: active(connection)},
	{page: "leaving.md"},
}

// followRunbooks runs the commands of every runbook in its situation.
func (t *trial) followRunbooks(ctx context.Context, say func(string, ...any)) error {
	for _, r := range runbooks {
		if err := t.follow(ctx, r); err != nil {
			return fmt.Errorf("runbook %s: %w", r.page, err)
		}
	}
	pages, err := filepath.Glob(filepath.Join(t.cloud.root, "infra/runbooks/*.md"))
	if err != nil || len(pages) != len(runbooks)+1 { // and README.md
		return fmt.Errorf("%d runbooks are tried, but the pages are %v", len(runbooks), pages)
	}
	say("followed %d runbooks", len(runbooks))
	return nil
}

var shellBlock = regexp.MustCompile("(?ms)^( *)```sh\n(.*?)^ *```$")

func (t *trial) follow(ctx context.Context, r runbook) error {
	page, err := os.ReadFile(filepath.Join(t.cloud.root, "infra/runbooks", r.page))
	if err != nil {
		return err
	}
	if r.before != nil {
		if err := r.before(ctx, t); err != nil {
			return fmt.Errorf("setting up its situation: %w", err)
		}
	}
	blocks := shellBlock.FindAllStringSubmatch(string(page), -1)
	if len(blocks) == 0 {
		return errors.New("it has no commands")
	}
	for i, block := range blocks {
		output, err := t.shell(ctx, block[2])
		if err != nil {
			return fmt.Errorf("block %d: %w", i+1, err)
		}
		if person := r.after[i]; person != nil {
			if err := person(ctx, t, output); err != nil {
				return fmt.Errorf("after block %d: %w", i+1, err)
			}
		}
	}
	if r.ends != nil {
		return r.ends(ctx, t)
	}
	return nil
}

// shell runs commands as an operator would, in a directory that has the app
// credentials, with the environment of first-deploy.md.
func (t *trial) shell(ctx context.Context, commands string) (string, error) {
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", commands)
	cmd.Dir = t.operatorDir
	cmd.Env = append(append(t.operatorEnv(), t.settings()...), "PATH="+t.operatorDir+":"+os.Getenv("PATH"),
		"ROTATE_FUNCTION="+t.outputs["RotateFunction"].value,
		"CALLBACK_FUNCTION="+t.outputs["CallbackFunction"].value,
		"ROTATE_ROLE="+t.outputs["RotateRoleArn"].value,
		"OPERATOR="+t.operator.arn, "AWS_DEFAULT_REGION="+region)
	var output, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &problems
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w\n%s\n%s%s", err, commands, output.Bytes(), problems.Bytes())
	}
	return output.String(), nil
}

// setUpOperator puts the operator's commands and the app credentials in a directory.
func (t *trial) setUpOperator(credentials []byte) error {
	t.operatorDir = filepath.Join(t.cloud.buildDir, "operator")
	program, err := t.cloud.program("tokenturn")
	aws := strings.Replace(awsCommand, "/usr/bin/env python3", t.cloud.python, 1)
	return errors.Join(err, os.Mkdir(t.operatorDir, 0o700),
		os.WriteFile(filepath.Join(t.operatorDir, "credentials.json"), credentials, 0o600),
		os.WriteFile(filepath.Join(t.operatorDir, "aws"), []byte(aws), 0o700),
		os.WriteFile(filepath.Join(t.operatorDir, "sleep"), []byte(sleepCommand), 0o700),
		os.Symlink(program, filepath.Join(t.operatorDir, "tokenturn")))
}

var link = regexp.MustCompile(`https://[^\s"]+/connect/[^\s"]+`)

func acceptInvitation(ctx context.Context, t *trial, output string) error {
	invitation := link.FindString(output)
	if invitation == "" {
		return fmt.Errorf("there is no link in %q", output)
	}
	return t.accept(ctx, invitation)
}

// active checks that a connection is in order and rotates.
func active(connection string) func(context.Context, *trial) error {
	return func(ctx context.Context, t *trial) error {
		return t.expect(ctx, connection, "rotated")
	}
}

// expect forces a rotation and compares its outcome.
func (t *trial) expect(ctx context.Context, connection, outcome string) error {
	answer, err := t.functions.invoke(ctx, t.made["RotateFunction"].attributes["Arn"],
		fmt.Appendf(nil, `{"op":"rotate","connection":%q}`, connection))
	if err != nil {
		return err
	}
	var report struct {
		Connections []struct{ Outcome, Detail string }
	}
	if err := json.Unmarshal(answer, &report); err != nil {
		return err
	}
	if got := report.Connections[0]; got.Outcome != outcome {
		return fmt.Errorf("rotating %s: %s (%s), want %s", connection, got.Outcome, got.Detail, outcome)
	}
	return nil
}

// overtakeBackup makes the restored rows older than the secret: moto restores
// the present rows, whatever the time.
func overtakeBackup(ctx context.Context, t *trial, _ string) error {
	return errors.Join(t.expect(ctx, connection, "rotated"), t.expect(ctx, connection, "rotated"))
}

// withdrawn: the person withdraws the consent.
func withdrawn(ctx context.Context, t *trial) error {
	t.procore.RevokeAll(t.app.ClientID, procoretest.DefaultUser().Login)
	return t.expect(ctx, connection, "needs_consent")
}

// spoiled connects somebody and spoils the answer to the next refresh.
func spoiled(connection, outcome string, answer procoretest.Answer) func(context.Context, *trial) error {
	return func(ctx context.Context, t *trial) error {
		if err := t.consent(ctx, connection); err != nil {
			return err
		}
		t.procore.Script(answer)
		return t.expect(ctx, connection, outcome)
	}
}

func twoRefreshTokens(sound string) string {
	return `{"refresh_token":"another-one-that-is-quite-as-plausible-as-the-first",` + strings.TrimPrefix(sound, "{")
}

func sealKeyDoomed(ctx context.Context, t *trial) error {
	key := t.outputs["SealKey"].value
	_, err := t.cloud.kms.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: &key})
	return err
}
