//go:build conformance

package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
)

// TestEnvironmentsDoNotMix has two environments with a server each in one
// installation. What belongs to one is refused in the other by both names, and
// when one is overwritten, that is one notice and the other goes on.
func TestEnvironmentsDoNotMix(t *testing.T) {
	t.Parallel()
	const lifetime = 20 * time.Second
	c := startCloud(t)
	for _, grace := range []int{0, 1} {
		t.Run(fmt.Sprintf("GRACE=%d", grace), func(t *testing.T) {
			t.Parallel()
			in := install(t, c, startProvider(t, grace, lifetime), fmt.Sprintf("environments-%d", grace), quick)
			monthly := startProviderFor(t, grace, lifetime, publicURL+"/callback/monthly-sandbox")
			in.applicationOf("monthly-sandbox", monthly, monthly.url)
			in.canary.add("client secret", monthly.clientSecret)
			own, prefix := in.value("app/monthly-sandbox"), in.env["TOKENTURN_SECRET_PREFIX"]
			others := []string{"monthly-sandbox/a", "monthly-sandbox/b", "monthly-sandbox/c", "monthly-sandbox/d"}
			for _, connection := range append([]string{"peer/acme"}, others...) {
				in.connect(connection)
				in.works(connection)
			}

			theirs := in.read("peer/acme")
			theirs.APIURL = monthly.url
			if status := in.use(theirs); status != http.StatusUnauthorized {
				t.Errorf("a token of peer is answered with %d at monthly-sandbox", status)
			}

			b := in.browser()
			callback := b.atProvider(b.begin(in.invite("peer/acme")))
			if p := b.open(http.MethodGet, strings.Replace(callback, "/callback/peer", "/callback/monthly-sandbox",
				1)); p.status != http.StatusBadRequest {
				t.Errorf("a state of peer is answered with %d at monthly-sandbox", p.status)
			}
			if !strings.Contains(in.logs.String(), "a state of peer at the redirect URI of monthly-sandbox") {
				t.Error("the log does not name the environments of a state and of the page it came back to")
			}

			in.refusesSomebodyElse("peer/acme")

			before := len(in.tap.presentations())
			in.overwrite(prefix+"/app/monthly-sandbox", strings.NewReplacer(monthly.clientID, in.provider.clientID,
				monthly.clientSecret, in.provider.clientSecret).Replace(own))
			for _, r := range in.force(others[3]).Connections {
				if r.Outcome != "config_error" || !strings.Contains(r.Detail, "monthly-sandbox/d belongs to another client id "+
					"than the app credentials of monthly-sandbox") {
					t.Errorf("with the credentials of peer: %+v", r)
				}
			}
			if after := len(in.tap.presentations()); after != before {
				t.Error("a token was presented with the credentials of another environment")
			}
			in.overwrite(prefix+"/app/monthly-sandbox", own)

			in.overwrite(prefix+"/connection/"+others[1], in.value("connection/peer/acme"))
			for deadline := time.Now().Add(30 * time.Second); in.force(others[1]).outcome(others[1]) == "busy" &&
				time.Now().Before(deadline); {
				time.Sleep(time.Second) // a pair this young is left to the run that brought it
			}
			in.works(others[1])
			if !strings.Contains(in.published(), "the document of peer/acme, which readers of monthly-sandbox/b refuse") {
				t.Errorf("no notice about a document of peer in monthly-sandbox: %s", in.published())
			}

			monthly.forget()
			time.Sleep(lifetime) // now all are due, and one sweep meets them, but for d, which waits after its failure
			in.sweep()
			if n := strings.Count(in.published(), `"kind":"needs_consent"`); n != 1 {
				t.Errorf("the wipe of all connections made %d notices:\n%s", n, in.published())
			}
			in.force("peer/acme")
			in.works("peer/acme")
			t.Logf("GRACE=%d: %s", grace, in.keepsSecrets())
		})
	}
}

// refusesSomebodyElse: who allows is not who was asked, which the callback
// function reports at once.
func (in *installation) refusesSomebodyElse(connection string) {
	in.t.Helper()
	var invited struct {
		URL string `json:"url"`
	}
	in.must(json.Unmarshal(in.operate("connection", "invite", connection, "--login", "sam@example.com"), &invited))
	b := in.browser()
	if p := b.open(http.MethodGet, b.atProvider(b.begin(invited.URL))); !strings.Contains(p.location,
		"result=wrong-account") {
		in.t.Errorf("a consent of pat's instead of sam's leads to %d %q", p.status, p.location)
	}
	if !strings.Contains(in.published(), `"kind":"rejected"`) {
		in.t.Errorf("no notice about a consent of somebody else's: %s", in.published())
	}
	in.sweep()
	in.works(connection)
}

// forget loses every token, as an environment that is overwritten does.
func (p *provider) forget() {
	p.t.Helper()
	answer, err := http.Post(p.url+"/_test/reset", "application/x-www-form-urlencoded", nil)
	if err != nil || answer.StatusCode != http.StatusOK {
		p.t.Fatalf("forgetting everything: %v %v", answer, err)
	}
	_ = answer.Body.Close()
}

// value reads a secret of the installation.
func (in *installation) value(secret string) string {
	in.t.Helper()
	out, err := in.secrets.GetSecretValue(in.t.Context(), &secretsmanager.GetSecretValueInput{
		SecretId: aws.String(in.env["TOKENTURN_SECRET_PREFIX"] + "/" + secret)})
	in.must(err)
	return aws.ToString(out.SecretString)
}

// published is what SNS published for programs, one notice a line.
func (in *installation) published() (notices string) {
	in.t.Helper()
	calls, _ := in.tap.since(0)
	for _, c := range calls {
		if c.Name != "Publish" {
			continue
		}
		form, err := url.ParseQuery(string(c.Body))
		in.must(err)
		var messages struct{ Default, Email string }
		in.must(json.Unmarshal([]byte(form.Get("Message")), &messages))
		if form.Get("MessageStructure") != "json" || messages.Email == "" {
			in.t.Errorf("a notice has no text for people: %s", c.Body)
		}
		notices += messages.Default + "\n"
	}
	return notices
}
