package awsstack

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awssns "github.com/aws/aws-sdk-go-v2/service/sns"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/tokenturn/tokenturn/pkg/config"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/sns"
	"github.com/tokenturn/tokenturn/pkg/sqs"
)

func open(t *testing.T, more ...string) *Stack {
	t.Helper()
	settings, err := config.Read(config.Callback, append(more, "TOKENTURN_TABLE=tokens", "TOKENTURN_SEAL_KEY=alias/seal",
		"TOKENTURN_PUBLIC_URL=https://connect.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
		"AWS_SECRET_ACCESS_KEY": "example"} {
		t.Setenv(name, value)
	}
	cfg, err := FunctionConfig(os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	stack, err := Open(cfg, settings, slog.New(slog.DiscardHandler), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return stack
}

// An interface with a nil pointer is not nil: the engine would call it.
func TestWhatIsNotConfiguredIsNil(t *testing.T) {
	stack := open(t)
	if stack.FollowUps != nil || stack.Notifier != nil {
		t.Errorf("queue %v, topic %v", stack.FollowUps, stack.Notifier)
	}
	stack = open(t, "TOKENTURN_QUEUE_URL=https://sqs.us-east-1.amazonaws.com/111122223333/q",
		"TOKENTURN_TOPIC_ARN=arn:aws:sns:us-east-1:111122223333:t")
	if stack.FollowUps == nil || stack.Notifier == nil {
		t.Error("the queue or the topic is left out")
	}
}

func TestEverythingCanBeWired(t *testing.T) {
	stack := open(t)
	if _, err := stack.Rotator(); err != nil {
		t.Error(err)
	}
	if _, err := stack.Consents(); err != nil {
		t.Error(err)
	}
}

func TestCallsAreBounded(t *testing.T) {
	c := open(t).clients
	for service, got := range map[string]struct {
		client  aws.HTTPClient
		retryer aws.Retryer
		want    time.Duration
	}{
		"DynamoDB":        {c.dynamodb.Options().HTTPClient, c.dynamodb.Options().Retryer, patience},
		"Secrets Manager": {c.secrets.Options().HTTPClient, c.secrets.Options().Retryer, patience},
		"SQS":             {c.sqs.Options().HTTPClient, c.sqs.Options().Retryer, sendPatience},
		"SNS":             {c.sns.Options().HTTPClient, c.sns.Options().Retryer, sendPatience},
	} {
		client, ok := got.client.(interface {
			GetTimeout() time.Duration
			GetTransport() *http.Transport
		})
		if !ok {
			t.Errorf("%s is called by a %T", service, got.client)
			continue
		}
		if client.GetTimeout() != got.want || got.retryer.MaxAttempts() != attempts {
			t.Errorf("%s has %d attempts of %v", service, got.retryer.MaxAttempts(), client.GetTimeout())
		}
	}
	if n := httpClient(64).GetTransport().MaxIdleConnsPerHost; n < 64 {
		t.Errorf("64 connections in flight share %d idle ones", n)
	}
}

// hanging is a service that lets the first requests hang until their senders give
// up, or, with a fault, answers them with that status, and then accepts one.
type hanging struct {
	left  int
	fault int
	asked int
}

func (h *hanging) RoundTrip(r *http.Request) (*http.Response, error) {
	h.asked++
	status, body := http.StatusOK, "{}"
	if r.Header.Get("X-Amz-Target") == "" { // SNS
		body = "<PublishResponse><PublishResult/></PublishResponse>"
	}
	if h.asked <= h.left {
		if h.fault == 0 {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		status, body = h.fault, ""
	}
	return &http.Response{StatusCode: status, Request: r, Header: http.Header{},
		Body: io.NopCloser(strings.NewReader(body))}, nil
}

// A follow-up and a notice are still sent if a service loses one once, within the time
// that their senders wait: 4 s in the engine, 3 s in package sns. And a service that
// never answers delays them for no longer.
func TestMessagesOutlastATransientError(t *testing.T) {
	for what, message := range map[string]struct {
		within time.Duration
		send   func(context.Context, aws.Config) error
	}{
		"a follow-up": {4 * time.Second, func(ctx context.Context, cfg aws.Config) error {
			ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
			defer cancel()
			queue := awssqs.NewFromConfig(cfg, func(o *awssqs.Options) { o.DisableMessageChecksumValidation = true })
			return sqs.New(queue, "https://sqs.us-east-1.amazonaws.com/111122223333/q").Send(ctx, rotation.Request{Op: "sweep"},
				0)
		}},
		"a notice": {3 * time.Second, func(ctx context.Context, cfg aws.Config) error {
			topic := awssns.NewFromConfig(cfg)
			return sns.New(topic, "arn:aws:sns:us-east-1:111122223333:t").Notify(ctx, rotation.Notice{})
		}},
	} {
		for how, service := range map[string]hanging{
			"hangs once":      {left: 1},
			"hangs twice":     {left: 2},
			"fails once":      {left: 1, fault: http.StatusServiceUnavailable},
			"fails thrice":    {left: 3, fault: http.StatusInternalServerError},
			"hangs for ever":  {left: 1000},
			"fails for ever":  {left: 1000, fault: http.StatusServiceUnavailable},
			"has no problems": {},
		} {
			t.Run(what+" to a service that "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					cfg := aws.Config{Region: "us-east-1", Retryer: sendRetryer,
						Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
						HTTPClient:  &http.Client{Transport: &service, Timeout: sendPatience}}
					begun := time.Now()
					err := message.send(t.Context(), cfg)
					if took := time.Since(begun); (err == nil) != (service.left < 1000) || took > message.within {
						t.Errorf("%v after %v and %d attempts", err, took, service.asked)
					}
					if service.left > 0 && service.asked < 2 || service.asked > attempts {
						t.Errorf("%d attempts", service.asked)
					}
				})
			})
		}
	}
}
