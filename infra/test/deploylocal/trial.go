package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/scheduler"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

const (
	rotations  = 10
	connection = "sandbox/acme"
)

// trial uses a deployed stack as its operator, a person with a browser and
// the services that call its functions would.
type trial struct {
	*stack
	outputs     map[string]output
	functions   functions
	procore     *procoretest.Server
	app         procoretest.App
	probes      int    // what was presented to find out whether the app credentials are good
	operatorDir string // where the operator works
	operator    struct{ arn, keyID, key string }
}

// try takes a connection from its invitation to its tenth rotation.
func try(ctx context.Context, s *stack, say func(string, ...any)) error {
	outputs, err := s.outputs()
	if err != nil {
		return err
	}
	t := &trial{stack: s, outputs: outputs}
	if err := errors.Join(s.describe(ctx, outputs), t.createOperator(ctx)); err != nil {
		return err
	}
	if err := t.configure(ctx); err != nil {
		return fmt.Errorf("configuring the command: %w", err)
	}
	say("configured the command from the outputs of the stack %s", s.name)
	if t.functions, err = startFunctions(ctx, s); err != nil {
		return err
	}
	defer t.functions.kill()
	app := procoretest.App{Name: "tokenturn", ClientID: "local", ClientSecret: token.NewSecret(rand.Text()),
		RedirectURIs: []string{outputs["CallbackUrlSandbox"].value}}
	t.app, t.procore = app, procoretest.New(procoretest.WithApp(app))
	defer t.procore.Close()
	if err := t.setUp(ctx, app); err != nil {
		return err
	}
	t.probes = len(t.procore.Presented())
	say("stored app credentials with the redirect URI %s", app.RedirectURIs[0])
	if err := t.consent(ctx, connection); err != nil {
		return fmt.Errorf("connecting %s: %w", connection, err)
	}
	say("connected %s: invitation, consent, callback, publication", connection)
	if err := t.sweepOnSchedule(ctx); err != nil {
		return fmt.Errorf("sweeping as the schedule does: %w", err)
	}
	for n := range rotations {
		if err := t.rotate(ctx, n%2 == 0); err != nil {
			return fmt.Errorf("rotation %d: %w", n+1, err)
		}
	}
	if err := t.check(ctx); err != nil {
		return err
	}
	say("rotated %s %d times, half of them by queue; each refresh token was presented once", connection, rotations)
	return t.followRunbooks(ctx, say)
}

// createOperator creates the user that first-deploy.md asks for.
func (t *trial) createOperator(ctx context.Context) error {
	name := aws.String("operator")
	user, err := t.cloud.iam.CreateUser(ctx, &iam.CreateUserInput{UserName: name})
	if err != nil {
		return err
	}
	if _, err := t.cloud.iam.AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: name,
		PolicyArn: aws.String(t.outputs["OperatorPolicyArn"].value)}); err != nil {
		return err
	}
	key, err := t.cloud.iam.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: name})
	if err != nil {
		return err
	}
	t.operator.arn, t.operator.keyID, t.operator.key = *user.User.Arn, *key.AccessKey.AccessKeyId,
		*key.AccessKey.SecretAccessKey
	return nil
}

// operatorEnv is the environment of the operator's command.
func (t *trial) operatorEnv() []string {
	return []string{"HOME=" + t.cloud.buildDir, "AWS_REGION=" + region, "AWS_ENDPOINT_URL=" + t.cloud.url,
		"AWS_ACCESS_KEY_ID=" + t.operator.keyID, "AWS_SECRET_ACCESS_KEY=" + t.operator.key}
}

// settings are what the operator sets in a shell to follow a runbook.
func (t *trial) settings() []string {
	env := []string{"TOKENTURN_PUBLIC_URL=" + t.outputs["PublicUrl"].value}
	for _, o := range t.outputs {
		if variable, _, _ := strings.Cut(o.description, " "); strings.HasPrefix(variable, "TOKENTURN_") {
			env = append(env, variable+"="+o.value)
		}
	}
	return env
}

// configure names the stack to the command once. From then on the operator's commands have
// no other settings. It also tries --stack by itself, and the settings for a shell.
func (t *trial) configure(ctx context.Context) error {
	if _, err := t.operate(ctx, nil, "profile", "add", "local", "--stack", t.name, "--region", region); err != nil {
		return err
	}
	for _, arguments := range [][]string{{"connection", "list"}, {"--stack", t.name, "connection", "list"}} {
		if list, err := t.operate(ctx, nil, arguments...); err != nil || strings.TrimSpace(string(list)) != "[]" {
			return fmt.Errorf("tokenturn %s answers %q: %w", strings.Join(arguments, " "), list, err)
		}
	}
	cmd, err := t.command(ctx, "--use", "local", "config", "show", "--export")
	if err != nil {
		return err
	}
	exports, err := cmd.Output()
	if err != nil {
		return err
	}
	for _, pair := range t.settings() {
		name, value, _ := strings.Cut(pair, "=")
		if line := "export " + name + "='" + value + "'\n"; !strings.Contains(string(exports), line) {
			return fmt.Errorf("config show --export lacks %q:\n%s", line, exports)
		}
	}
	return nil
}

// command is the operator's command.
func (t *trial) command(ctx context.Context, arguments ...string) (*exec.Cmd, error) {
	program, err := t.cloud.program("tokenturn")
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, arguments...)
	cmd.Env = t.operatorEnv()
	return cmd, nil
}

// operate runs the operator's command.
func (t *trial) operate(ctx context.Context, input []byte, arguments ...string) ([]byte, error) {
	cmd, err := t.command(ctx, append([]string{"--json"}, arguments...)...)
	if err != nil {
		return nil, err
	}
	var problems bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(input), &problems
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("tokenturn %s: %w\n%s", strings.Join(arguments, " "), err, problems.Bytes())
	}
	return out, nil
}

func (t *trial) setUp(ctx context.Context, app procoretest.App) error {
	credentials, err := json.Marshal(map[string]string{"client_id": app.ClientID,
		"client_secret": app.ClientSecret.Reveal(),
		"redirect_uri":  app.RedirectURIs[0], "login_url": t.procore.URL, "api_url": t.procore.URL})
	if err != nil {
		return err
	}
	if _, err = t.operate(ctx, credentials, "app", "set", "sandbox", "--stdin"); err != nil {
		return err
	}
	return t.setUpOperator(credentials)
}

// consent takes a new connection to its first published pair.
func (t *trial) consent(ctx context.Context, connection string) error {
	answer, err := t.operate(ctx, nil, "connection", "invite", connection)
	if err != nil {
		return err
	}
	var invitation struct{ URL string }
	if err := json.Unmarshal(answer, &invitation); err != nil {
		return err
	}
	return t.accept(ctx, invitation.URL)
}

// accept opens an invitation, allows access and comes back. Then it delivers what
// the callback queued.
func (t *trial) accept(ctx context.Context, invitation string) error {
	b, err := t.newBrowser(ctx)
	if err != nil {
		return err
	}
	if _, err := b.open(ctx, "GET", invitation, 200); err != nil {
		return err
	}
	authorize, err := b.open(ctx, "POST", invitation, 303)
	if err != nil {
		return err
	}
	callback, err := t.procore.Consent(authorize, procoretest.DefaultUser().Login, true)
	if err != nil {
		return err
	}
	result, err := b.open(ctx, "GET", callback, 303)
	if err != nil {
		return err
	}
	if !strings.Contains(result, "/connected") {
		return fmt.Errorf("the callback leads to %s", result)
	}
	if _, err := b.open(ctx, "GET", result, 200); err != nil {
		return err
	}
	return t.deliver(ctx)
}

// sweepOnSchedule invokes what the schedule names, with its input.
func (t *trial) sweepOnSchedule(ctx context.Context) error {
	name := t.name + "-sweep"
	schedule, err := t.cloud.scheduler.GetSchedule(ctx, &scheduler.GetScheduleInput{Name: &name})
	if err != nil {
		return err
	}
	answer, err := t.functions.invoke(ctx, *schedule.Target.Arn, []byte(aws.ToString(schedule.Target.Input)))
	if err == nil && !strings.Contains(string(answer), `"op":"sweep"`) {
		err = fmt.Errorf("the function answers %s", answer)
	}
	return err
}

func (t *trial) rotate(ctx context.Context, byQueue bool) error {
	request := []byte(`{"op":"rotate","connection":"` + connection + `"}`)
	if byQueue {
		_, err := t.cloud.sqs.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: aws.String(t.outputs["QueueUrl"].value),
			MessageBody: aws.String(string(request))})
		return errors.Join(err, t.deliver(ctx))
	}
	answer, err := t.functions.invoke(ctx, t.made["RotateFunction"].attributes["Arn"], request)
	if err == nil && !strings.Contains(string(answer), `"outcome":"rotated"`) {
		err = fmt.Errorf("the function answers %s", answer)
	}
	return err
}

// check reads the token as a consumer does, and asks the stand-in which tokens it got.
func (t *trial) check(ctx context.Context) error {
	answer, err := t.operate(ctx, nil, "token", "print", connection)
	if err != nil {
		return err
	}
	var shown struct {
		AccessToken string    `json:"access_token"`
		ExpiresAt   time.Time `json:"expires_at"`
	}
	if err := json.Unmarshal(answer, &shown); err != nil {
		return err
	}
	if !t.procore.Accepts(token.NewSecret(shown.AccessToken)) || time.Until(shown.ExpiresAt) < time.Hour {
		return fmt.Errorf("the published access token does not work, or ends at %v", shown.ExpiresAt)
	}
	presented := t.procore.Presented()
	for what, times := range presented {
		if times != 1 {
			return fmt.Errorf("%s was presented %d times", what, times)
		}
	}
	if got, want := len(presented)-t.probes, rotations+1; got != want { // and the code
		return fmt.Errorf("%d codes and refresh tokens were presented, want %d", got, want)
	}
	if log, _ := os.ReadFile(filepath.Join(t.cloud.buildDir, "functions.log")); bytes.Contains(log,
		[]byte(shown.AccessToken)) {
		return errors.New("the functions' log contains the access token")
	}
	return nil
}
