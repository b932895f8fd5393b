package sns_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	awssns "github.com/aws/aws-sdk-go-v2/service/sns"

	"github.com/tokenturn/tokenturn/pkg/internal/awstest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/sns"
	"github.com/tokenturn/tokenturn/pkg/token"
)

const topic = "arn:aws:sns:us-east-1:123456789012:notices"

var notice = rotation.Notice{Kind: rotation.NoticeNeedsConsent, Connection: token.Connection{Environment: "sandbox",
	Name: "acme"},
	Environment: "sandbox", Summary: "allow again", At: time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)}

func notify(script *awstest.Script, ctx context.Context, n rotation.Notice) error {
	return sns.New(awssns.NewFromConfig(script.Config()), topic).Notify(ctx, n)
}

func TestNotifyPublishesTheNotice(t *testing.T) {
	script := awstest.Play(func(awstest.Call) (any, error) { return nil, nil })
	done, cancel := context.WithCancel(t.Context())
	cancel() // as at the end of a run
	if err := notify(script, done, notice); err != nil {
		t.Error(err)
	}
	calls := script.Calls()
	if len(calls) != 1 || calls[0].Operation != "Publish" || calls[0].Input["TopicArn"] != topic {
		t.Fatalf("asked for %v", calls)
	}
	if subject := calls[0].Input["Subject"]; subject != "tokenturn: sandbox/acme needs a new consent" {
		t.Errorf("subject %q", subject)
	}
	var got rotation.Notice
	if err := json.Unmarshal([]byte(sent(t, calls[0])["default"]), &got); err != nil || !reflect.DeepEqual(got, notice) {
		t.Errorf("message %v, %v", calls[0].Input["Message"], err)
	}
}

// sent returns the messages of a call by the protocol of their subscriptions.
func sent(t *testing.T, call awstest.Call) (messages map[string]string) {
	t.Helper()
	if structure := call.Input["MessageStructure"]; structure != "json" {
		t.Fatalf("the message structure is %v", structure)
	}
	if err := json.Unmarshal([]byte(call.Input["Message"].(string)), &messages); err != nil {
		t.Fatal(err)
	}
	return messages
}

// People read a mail, not JSON.
func TestAMailIsText(t *testing.T) {
	script := awstest.Play(func(awstest.Call) (any, error) { return nil, nil })
	linked := notice
	linked.Summary = "Pat <pat@example.com> of Smith & Sons must allow access again."
	linked.Link = token.NewSecret("https://connect.example.com/connect/one?a=1&b=2")
	incident := rotation.Notice{Kind: rotation.NoticeNeedsConsent, Environment: "sandbox", Summary: "Several.",
		At: notice.At}
	if err := errors.Join(notify(script, t.Context(), linked), notify(script, t.Context(), incident)); err != nil {
		t.Error(err)
	}
	calls := script.Calls()
	want := `Pat <pat@example.com> of Smith & Sons must allow access again.

The link for that person. Anyone who has it can use it, so do not send it to a list:
https://connect.example.com/connect/one?a=1&b=2

Connection: sandbox/acme
Notice: needs_consent
Time: 2026-11-21 22:00 UTC
`
	if got := sent(t, calls[0])["email"]; got != want {
		t.Errorf("the mail is\n%s\nwant\n%s", got, want)
	}
	if got := sent(t, calls[0])["sms"]; got != "tokenturn: sandbox/acme needs a new consent" {
		t.Errorf("the text message is %s", got)
	}
	want = "Several.\n\nEnvironment: sandbox\nNotice: needs_consent\nTime: 2026-11-21 22:00 UTC\n"
	if got := sent(t, calls[1])["email"]; got != want {
		t.Errorf("the mail of an incident is\n%s", got)
	}
	if data := sent(t, calls[0])["default"]; !strings.Contains(data, "Smith & Sons") {
		t.Errorf("the data is %s", data)
	}
}

// The link of a notice reaches the people who forward it.
func TestNotifyPublishesTheLink(t *testing.T) {
	script := awstest.Play(func(awstest.Call) (any, error) { return nil, nil })
	linked := notice
	linked.Link = token.NewSecret("https://connect.example.com/connect/canary")
	if err := notify(script, t.Context(), linked); err != nil {
		t.Error(err)
	}
	var got struct{ Kind, Summary, Link string }
	if err := json.Unmarshal([]byte(sent(t, script.Calls()[0])["default"]), &got); err != nil ||
		got.Link != linked.Link.Reveal() || got.Kind != linked.Kind || got.Summary != linked.Summary {
		t.Errorf("message %v, %v", got, err)
	}
}

func TestSubjectFitsWhatSNSTakes(t *testing.T) {
	script := awstest.Play(func(awstest.Call) (any, error) { return nil, nil })
	long := notice
	long.Connection = token.Connection{Environment: strings.Repeat("e", 63), Name: strings.Repeat("n", 63)}
	general := rotation.Notice{Kind: rotation.NoticeConfigError, Environment: "sandbox"}
	if err := errors.Join(notify(script, t.Context(), long), notify(script, t.Context(), general)); err != nil {
		t.Error(err)
	}
	calls := script.Calls()
	if subject := calls[0].Input["Subject"].(string); len(subject) != 100 {
		t.Errorf("subject of %d characters: %s", len(subject), subject)
	}
	if subject := calls[1].Input["Subject"]; subject != "tokenturn: sandbox: a setting, secret or credential is wrong" {
		t.Errorf("subject %q", subject)
	}
}

// silent never answers.
type silent struct{}

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// No sender waits long for a notice, whatever the service and the client do.
func TestNoticeHoldsItsSenderUpForSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := awstest.Play(nil).Config()
		cfg.HTTPClient = &http.Client{Transport: silent{}}
		begun := time.Now()
		err := sns.New(awssns.NewFromConfig(cfg), topic).Notify(t.Context(), notice)
		if took := time.Since(begun); err == nil || took != 3*time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

func TestUndeliverableNotice(t *testing.T) {
	script := awstest.Play(func(awstest.Call) (any, error) { return nil, errors.New("no network") })
	linked := notice
	linked.Link = token.NewSecret("https://connect.example.com/connect/canary")
	err := notify(script, t.Context(), linked)
	if err == nil || !strings.Contains(err.Error(), topic) || !strings.Contains(err.Error(), "no network") ||
		strings.Contains(err.Error(), "canary") {
		t.Errorf("the error is %v", err)
	}
}
