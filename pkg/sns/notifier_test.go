package sns_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	awssns "github.com/aws/aws-sdk-go-v2/service/sns"

	"github.com/tokenturn/tokenturn/pkg/internal/awstest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/sns"
	"github.com/tokenturn/tokenturn/pkg/token"
)

const topic = "arn:aws:sns:us-east-1:123456789012:notices"

var notice = rotation.Notice{Kind: rotation.NoticeNeedsConsent, Connection: token.Connection{Environment: "sandbox", Name: "acme"},
	Environment: "sandbox", Summary: "allow again", At: time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)}

func notify(script *awstest.Script, ctx context.Context, n rotation.Notice) string {
	var log bytes.Buffer
	sns.New(awssns.NewFromConfig(script.Config()), topic, slog.New(slog.NewTextHandler(&log, nil))).Notify(ctx, n)
	return log.String()
}

func TestNotifyPublishesTheNotice(t *testing.T) {
	script := awstest.Play(func(awstest.Call) (any, error) { return nil, nil })
	done, cancel := context.WithCancel(t.Context())
	cancel() // as at the end of a run
	if log := notify(script, done, notice); log != "" {
		t.Errorf("logged %s", log)
	}
	calls := script.Calls()
	if len(calls) != 1 || calls[0].Operation != "Publish" || calls[0].Input["TopicArn"] != topic {
		t.Fatalf("asked for %v", calls)
	}
	if subject := calls[0].Input["Subject"]; subject != "tokenturn: needs consent sandbox/acme" {
		t.Errorf("subject %q", subject)
	}
	var got rotation.Notice
	if err := json.Unmarshal([]byte(calls[0].Input["Message"].(string)), &got); err != nil || !reflect.DeepEqual(got, notice) {
		t.Errorf("message %v, %v", calls[0].Input["Message"], err)
	}
}

// The link of a notice reaches those who are to pass it on.
func TestNotifyPublishesTheLink(t *testing.T) {
	script := awstest.Play(func(awstest.Call) (any, error) { return nil, nil })
	linked := notice
	linked.Link = token.NewSecret("https://connect.example.com/connect/canary")
	if log := notify(script, t.Context(), linked); strings.Contains(log, "canary") {
		t.Errorf("logged %s", log)
	}
	var got struct{ Kind, Summary, Link string }
	if err := json.Unmarshal([]byte(script.Calls()[0].Input["Message"].(string)), &got); err != nil ||
		got.Link != linked.Link.Reveal() || got.Kind != linked.Kind || got.Summary != linked.Summary {
		t.Errorf("message %v, %v", got, err)
	}
}

func TestSubjectFitsWhatSNSTakes(t *testing.T) {
	script := awstest.Play(func(awstest.Call) (any, error) { return nil, nil })
	long := notice
	long.Connection = token.Connection{Environment: strings.Repeat("e", 63), Name: strings.Repeat("n", 63)}
	notify(script, t.Context(), long)
	general := rotation.Notice{Kind: rotation.NoticeConfigError, Environment: "sandbox"}
	notify(script, t.Context(), general)
	calls := script.Calls()
	if subject := calls[0].Input["Subject"].(string); len(subject) != 100 {
		t.Errorf("subject of %d characters: %s", len(subject), subject)
	}
	if subject := calls[1].Input["Subject"]; subject != "tokenturn: config error sandbox" {
		t.Errorf("subject %q", subject)
	}
}

func TestUndeliverableNoticeIsLogged(t *testing.T) {
	script := awstest.Play(func(awstest.Call) (any, error) { return nil, errors.New("no network") })
	log := notify(script, t.Context(), notice)
	for _, part := range []string{"not published", "needs_consent", "sandbox/acme", topic} {
		if !strings.Contains(log, part) {
			t.Errorf("the log lacks %q: %s", part, log)
		}
	}
}
