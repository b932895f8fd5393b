// Package sns sends notices to an Amazon SNS topic. It needs the action Publish.
package sns

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// Client is the part of *sns.Client that the package uses.
type Client interface {
	Publish(context.Context, *sns.PublishInput, ...func(*sns.Options)) (*sns.PublishOutput, error)
}

// patience is how long a notice may delay its sender.
const patience = 3 * time.Second

// maxSubject is the longest subject that SNS accepts, in characters.
const maxSubject = 100

// Notifier is a rotation.Notifier. It is safe for concurrent use.
type Notifier struct {
	client Client
	topic  string
}

var (
	_ Client            = (*sns.Client)(nil)
	_ rotation.Notifier = (*Notifier)(nil)
)

// New returns a notifier for the topic with the ARN. It makes no call.
func New(client Client, topicARN string) *Notifier {
	return &Notifier{client, topicARN}
}

// Notify implements rotation.Notifier. A notice is often the last
// action before a deadline, so it is sent even if ctx is done.
func (n *Notifier) Notify(ctx context.Context, notice rotation.Notice) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	message, err := json.Marshal(struct {
		rotation.Notice
		Link string `json:"link,omitempty"`
	}{notice, notice.Link.Reveal()})
	if err != nil {
		return fmt.Errorf("encoding a notice: %w", err)
	}
	_, err = n.client.Publish(ctx, &sns.PublishInput{TopicArn: &n.topic, Subject: aws.String(subject(notice)),
		Message: aws.String(string(message))})
	if err != nil {
		return fmt.Errorf("publishing to %s: %w", n.topic, err)
	}
	return nil
}

// about returns the connection or, for a notice about several, their environment.
func about(n rotation.Notice) string {
	if n.Connection.IsZero() {
		return n.Environment
	}
	return n.Connection.String()
}

// subject returns one line of ASCII, as SNS requires for e-mail: kinds and names have no other characters.
func subject(n rotation.Notice) string {
	s := strings.TrimSpace("tokenturn: " + strings.ReplaceAll(n.Kind, "_", " ") + " " + about(n))
	return s[:min(len(s), maxSubject)]
}
