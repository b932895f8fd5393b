// Package sqs requests later runs with delayed messages in an Amazon SQS standard queue.
// It needs the action SendMessage.
package sqs

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// Client is the part of *sqs.Client that the package uses. Its configuration must bound the
// time of a call, so that a second attempt fits into the seconds that the sender of a
// follow-up waits.
type Client interface {
	SendMessage(context.Context, *sqs.SendMessageInput, ...func(*sqs.Options)) (*sqs.SendMessageOutput, error)
}

// FollowUps is a rotation.FollowUps. It is safe for concurrent use.
type FollowUps struct {
	client Client
	queue  string
}

var (
	_ Client             = (*sqs.Client)(nil)
	_ rotation.FollowUps = (*FollowUps)(nil)
)

// New returns the follow-ups of the queue with the URL. It makes no call.
func New(client Client, queueURL string) *FollowUps { return &FollowUps{client, queueURL} }

// Send implements rotation.FollowUps. A delay above SQS's limit becomes the longest
// possible one; the message then arrives early and its NotBefore says so.
func (f *FollowUps) Send(ctx context.Context, request rotation.Request, delay time.Duration) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encoding a follow-up: %w", err)
	}
	_, err = f.client.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &f.queue, MessageBody: aws.String(string(body)),
		DelaySeconds: seconds(delay)})
	if err != nil {
		return fmt.Errorf("sending a follow-up (%s %s) to queue %s: %w", request.Op, request.Connection, f.queue, err)
	}
	return nil
}

// seconds rounds up, within what SQS accepts.
func seconds(delay time.Duration) int32 {
	delay = min(max(delay, 0), rotation.MaxDelay)
	return int32((delay + time.Second - 1) / time.Second)
}
