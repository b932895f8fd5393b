//go:build conformance

package conformance

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamodbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// TestConsentThatFails goes through what can go wrong in a browser. Each time
// the person sees one page that says what to do, no code is exchanged, and the
// invitation or the state remains good for the right try.
func TestConsentThatFails(t *testing.T) {
	t.Parallel()
	in := install(t, startCloud(t), startProvider(t, 0, 10*time.Minute), "consent", patient)
	invitation := in.invite("peer/acme")
	b := in.browser()

	t.Run("denied", func(t *testing.T) {
		result := b.open(http.MethodGet, b.atProvider(b.begin(invitation), "deny"))
		if u, _ := url.Parse(result.location); result.status != http.StatusSeeOther || u.Path != "/not-connected" {
			t.Fatalf("a denied consent answers %d %q, want a redirect to /not-connected", result.status, result.location)
		}
		if p := b.open(http.MethodGet, result.location); p.status != http.StatusOK || !strings.Contains(p.body,
			"did not allow access") {
			t.Errorf("the result page answers %d: %s", p.status, p.body)
		}
	})

	callback := b.atProvider(b.begin(invitation))
	for name, try := range map[string]struct {
		by      *browser
		address string
	}{
		"other browser":     {in.browser(), callback},
		"other environment": {b, strings.Replace(callback, "/callback/"+environment, "/callback/sandbox", 1)},
		"forged state":      {b, in.forged(callback)},
		"no state":          {b, redirectURI + "?code=whatever"},
		"state given twice": {b, callback + "&state=" + strings.Repeat("A", 52)},
	} {
		t.Run(name, func(t *testing.T) {
			_, mark := in.tap.since(0)
			p := try.by.open(http.MethodGet, try.address)
			if p.status != http.StatusBadRequest || !strings.Contains(p.body, "Open the link in your invitation again") {
				t.Errorf("answers %d: %s", p.status, p.body)
			}
			if touched := in.touched(mark); len(touched) != 0 {
				t.Errorf("caused %v", touched)
			}
		})
	}

	t.Run("expired state", func(t *testing.T) {
		late := b.atProvider(b.begin(invitation))
		in.expireState(late)
		_, mark := in.tap.since(0)
		if p := b.open(http.MethodGet, late); p.status != http.StatusBadRequest {
			t.Errorf("answers %d: %s", p.status, p.body)
		}
		if touched := in.touched(mark); len(touched) != 0 {
			t.Errorf("caused %v", touched)
		}
	})

	t.Run("right browser, then again", func(t *testing.T) {
		first := b.open(http.MethodGet, callback)
		if first.status != http.StatusSeeOther || !strings.HasPrefix(path(first.location), "/connected") {
			t.Fatalf("the right callback answers %d %q", first.status, first.location)
		}
		_, mark := in.tap.since(0)
		if again := b.open(http.MethodGet, callback); again.status != http.StatusSeeOther ||
			again.location != first.location {
			t.Errorf("repeating the callback answers %d %q, want %q again", again.status, again.location, first.location)
		}
		if p := b.open(http.MethodGet, invitation); p.status != http.StatusGone {
			t.Errorf("the used invitation answers %d, want 410", p.status)
		}
		if touched := in.touched(mark); len(touched) != 0 {
			t.Errorf("the repetition caused %v", touched)
		}
		in.deliver()
		in.works("peer/acme")
	})

	if p := b.open(http.MethodGet, publicURL+"/connect/"+strings.Repeat("A", 52)); p.status != http.StatusNotFound {
		t.Errorf("an unknown invitation answers %d, want 404", p.status)
	}
	if p := b.open(http.MethodGet, publicURL+"/healthz"); p.status != http.StatusOK {
		t.Errorf("/healthz answers %d", p.status)
	}
	exchanged := 0
	for _, grant := range in.provider.issued().Codes {
		n := in.tap.presentations()[grant.Code]
		if exchanged += n; n > 1 {
			t.Errorf("a code was presented %d times", n)
		}
	}
	if exchanged != 1 {
		t.Errorf("%d codes were exchanged, want the one of the right callback", exchanged)
	}
	t.Logf("denied, 5 forged or misdirected callbacks, expired, repeated: %d code exchanged; %s", exchanged,
		in.keepsSecrets())
}

// forged is the callback with a well-formed state that nobody issued.
func (in *installation) forged(callback string) string {
	u, err := url.Parse(callback)
	in.must(err)
	query := u.Query()
	query.Set("state", strings.Repeat("A", 52))
	u.RawQuery = query.Encode()
	return u.String()
}

// path is the path of an address; "" if it is none.
func path(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Path
}

// expireState makes the state of the callback expire in the table, since
// nobody waits ten minutes for it.
func (in *installation) expireState(callback string) {
	in.t.Helper()
	u, err := url.Parse(callback)
	in.must(err)
	key := "STATE#" + fmt.Sprintf("%x", sha256.Sum256([]byte(u.Query().Get("state"))))
	_, err = in.dynamodb.UpdateItem(in.t.Context(),
		&dynamodb.UpdateItemInput{TableName: aws.String(in.env["TOKENTURN_TABLE"]),
			Key: map[string]dynamodbtypes.AttributeValue{"pk": &dynamodbtypes.AttributeValueMemberS{Value: key},
				"sk": &dynamodbtypes.AttributeValueMemberS{Value: "STATE"}},
			UpdateExpression:         aws.String("SET #expires = :past, #state.#expires_at = :then"),
			ConditionExpression:      aws.String("attribute_exists(#state)"),
			ExpressionAttributeNames: map[string]string{"#expires": "expires", "#state": "state", "#expires_at": "expires_at"},
			ExpressionAttributeValues: map[string]dynamodbtypes.AttributeValue{":past": &dynamodbtypes.AttributeValueMemberN{
				Value: "1"},
				":then": &dynamodbtypes.AttributeValueMemberS{Value: "2020-01-01T00:00:00Z"}}})
	in.must(err)
}
