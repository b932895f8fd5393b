//go:build conformance

package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// TestLifetimes keeps a person's connection and a service account fresh with
// tokens of fifteen minutes and of five seconds: what counts is what expires_in says.
func TestLifetimes(t *testing.T) {
	t.Parallel()
	hourly := map[string]string{"TOKENTURN_CADENCE": "1h"}
	c := startCloud(t)
	for _, grace := range []int{0, 1} {
		for lifetime, settings := range map[time.Duration]map[string]string{15 * time.Minute: hourly,
			5 * time.Second: patient} {
			t.Run(fmt.Sprintf("GRACE=%d, %v", grace, lifetime), func(t *testing.T) {
				t.Parallel()
				in := install(t, c, startProvider(t, grace, lifetime), fmt.Sprintf("lifetimes-%d-%v", grace, lifetime.Seconds()),
					settings)
				in.connect("peer/acme")
				in.serviceAccount("peer/sync")
				both := []string{"peer/acme", "peer/sync"}
				if lifetime == 5*time.Second {
					in.chase(both, 6, 3*time.Minute)
				} else {
					in.lastQuarterHour(both)
				}
				in.stops("peer/sync")
				t.Logf("GRACE=%d, expires_in %v: %d tokens issued; %s", grace, lifetime, len(in.provider.issued().Tokens),
					in.keepsSecrets())
			})
		}
	}
}

// serviceAccount has the operator's command connect the app itself.
func (in *installation) serviceAccount(connection string) {
	in.t.Helper()
	var answer struct {
		Outcome   string `json:"outcome"`
		Company   string `json:"company"`
		Permitted bool   `json:"permitted"`
	}
	in.must(json.Unmarshal(in.operate("connection", "service-account", connection, "--company", "42"), &answer))
	if answer.Outcome != "rotated" || answer.Company != "42" || !answer.Permitted {
		in.t.Fatalf("connection service-account answers %+v", answer)
	}
}

// chase sweeps until each connection has had n new tokens that were tried, and
// insists that they worked. A token that ran out before this machine came to
// try it says nothing.
func (in *installation) chase(connections []string, n int, limit time.Duration) {
	in.t.Helper()
	worked, last := map[string]int{}, map[string]int64{}
	for _, c := range connections {
		last[c] = in.read(c).Generation
	}
	for started, behind := time.Now(), true; behind; time.Sleep(100 * time.Millisecond) {
		if time.Since(started) > limit {
			in.t.Fatalf("%v of %d tokens worked, generations %v after %v; the last answers:\n%s", worked, n, last, limit,
				in.answers.tail(2000))
		}
		in.sweep()
		in.deliver()
		behind = false
		for _, c := range connections {
			if d := in.read(c); d.Generation != last[c] {
				switch status, late := in.use(d), time.Now().After(d.ExpiresAt); {
				case status == http.StatusOK:
					worked[c]++
				case !late:
					in.t.Errorf("%s (%d, %d): /rest/v1.0/me answers %d before the token ran out", c, d.Epoch, d.Generation, status)
				}
				last[c] = d.Generation
			}
			behind = behind || worked[c] < n
		}
	}
}

// lastQuarterHour: waiting for the next hourly sweep would be too long, so a
// message is on its way for each. Who asks for more life gets what there is, and
// who insists a new token.
func (in *installation) lastQuarterHour(connections []string) {
	in.t.Helper()
	url := in.env["TOKENTURN_QUEUE_URL"]
	out, err := in.queue.GetQueueAttributes(in.t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &url,
		AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameApproximateNumberOfMessagesDelayed}})
	in.must(err)
	if waiting, _ := strconv.Atoi(out.Attributes["ApproximateNumberOfMessagesDelayed"]); waiting < len(connections) {
		in.t.Errorf("%d messages wait in the queue for %d connections", waiting, len(connections))
	}
	for _, c := range connections {
		d := in.works(c)
		if left := time.Until(d.ExpiresAt); left < 14*time.Minute || left > 15*time.Minute {
			in.t.Errorf("%s: the token has %v left of fifteen minutes", c, left)
		}
		ensure := func(seconds int) string {
			return in.do(fmt.Sprintf(`{"op":"ensure","connection":%q,"min_ttl_seconds":%d}`, c, seconds)).outcome(c)
		}
		if got := ensure(600); got != "fresh" {
			in.t.Errorf("%s: ensuring ten minutes: %s", c, got)
		}
		time.Sleep(time.Until(d.ExpiresAt.Add(-898 * time.Second)))
		for _, seconds := range []int{899, 5400} { // the day's 99 versions are set aside for keeping it alive
			if got := ensure(seconds); got != "fresh" {
				in.t.Errorf("%s: ensuring %d s: %s", c, seconds, got)
			}
		}
		if got := in.force(c).outcome(c); got != "rotated" {
			in.t.Errorf("%s: forced: %s", c, got)
		}
		if now := in.works(c); now.Generation != d.Generation+1 {
			in.t.Errorf("%s went from generation %d to %d", c, d.Generation, now.Generation)
		}
	}
}

// stops takes the service account out of use, and its token with it.
func (in *installation) stops(connection string) {
	in.t.Helper()
	d := in.works(connection)
	in.disconnect(connection)
	if status := in.use(d); status != http.StatusUnauthorized {
		in.t.Errorf("after disconnecting, the token of %s is answered with %d", connection, status)
	}
}
