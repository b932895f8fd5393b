package rotation_test

import (
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// trouble is one way in which a part of an installation can be out of order for
// hours: calls that fail, or what a person has set wrong.
type trouble struct {
	name         string
	calls        []string // prefixes of their names
	when         rotationtest.Moment
	fault        rotationtest.Fault
	wrong, right func(*harness) // what a person does, and puts right
	skew         time.Duration  // of all clocks
	asksForTime  bool           // after the repair the server's wish still holds
}

func (t trouble) String() string { return t.name }

// down is a trouble of one method, or of several.
func down(name string, calls ...string) trouble {
	return trouble{name: name, calls: calls, when: before, fault: fail}
}

// lostAnswers is one where the effects happen, and no answer comes.
func lostAnswers(name string, calls ...string) trouble {
	return trouble{name: name, calls: calls, when: after, fault: fail}
}

// hangs is one where the effects happen long after every timeout.
func hangs(name string, calls ...string) trouble {
	return trouble{name: name, calls: calls, when: before, fault: slow(45 * time.Second)}
}

func answers(name string, kind rotationtest.Kind) trouble {
	return trouble{name: name, calls: []string{"issuer.Redeem"}, when: before, fault: rotationtest.Fault{Kind: kind}}
}

// troubles are every method of every port, each service as a whole, and what people
// and machines get wrong.
var troubles = []trouble{
	down("ledger.Load fails", "ledger.Load"),
	down("ledger.Due fails", "ledger.Due"),
	down("ledger.Write fails", "ledger.Write"),
	down("ledger.SaveResponse fails", "ledger.SaveResponse"),
	down("secrets.Current fails", "secrets.Current"),
	down("secrets.Version and Versions fail", "secrets.Version"),
	down("secrets.Create fails", "secrets.Create"),
	down("secrets.Put fails", "secrets.Put"),
	down("secrets.Promote fails", "secrets.Promote"),
	down("sealer.DataKey fails", "sealer.DataKey"),
	down("sealer.Unwrap fails", "sealer.Unwrap"),
	down("the app credentials cannot be read", "applications."),
	answers("no connection to the login host", rotationtest.Unsent),
	answers("the login host answers 503", rotationtest.Fail),
	{name: "the login host answers 429", calls: []string{"issuer.Redeem"}, when: before, fault: throttle,
		asksForTime: true},
	answers("the login host answers invalid_client", rotationtest.Deny),
	lostAnswers("the answers of the login host are lost", "issuer.Redeem"),
	down("issuer.Identify fails", "issuer.Identify"),
	down("issuer.Revoke fails", "issuer.Revoke"),
	down("the queue refuses messages", "followups.Send"),
	down("the shared rate limiter fails", "ratelimiter."),
	down("the notice claims fail", "noticeclaims."),
	down("notices cannot be delivered", "notifier."),
	down("links cannot be made", "invitations."),

	lostAnswers("the answers to ledger.Write are lost", "ledger.Write"),
	lostAnswers("the answers to ledger.SaveResponse are lost", "ledger.SaveResponse"),
	lostAnswers("the answers to secrets.Put are lost", "secrets.Put"),
	lostAnswers("the answers to secrets.Promote are lost", "secrets.Promote"),
	lostAnswers("the answers to followups.Send are lost", "followups.Send"),
	hangs("the ledger hangs", "ledger."),
	hangs("the secret store hangs", "secrets."),
	hangs("the login host hangs", "issuer.Redeem"),

	down("DynamoDB is down", "ledger.", "ratelimiter.", "noticeclaims.", "invitations."),
	down("Secrets Manager is down", "secrets.", "applications."),
	down("KMS is down", "sealer."),
	down("Procore is down", "issuer."),
	down("the network is down", "ledger.", "ratelimiter.", "noticeclaims.", "invitations.", "secrets.", "applications.",
		"sealer.", "issuer.", "followups.", "notifier."),

	{name: "the client secret is wrong", wrong: forgeSecret, right: restoreApp},
	{name: "another app is set", wrong: forgeApp, right: restoreApp},
	{name: "the clocks are three hours ahead", skew: 3 * time.Hour},
	{name: "the clocks are three hours behind", skew: -3 * time.Hour},
	answers("a firewall answers for the login host", rotationtest.Odd),
}

func forgeSecret(b *harness) {
	wrong := app
	wrong.ClientSecret = token.NewSecret("client+/mistyped==")
	b.Applications.Set(wrong)
}

func forgeApp(b *harness) {
	wrong := app
	wrong.ClientID = "another"
	b.Applications.Set(wrong)
}

func restoreApp(b *harness) { b.Applications.Set(app) }

// onset is when a trouble begins: a while before or after what it disturbs, or as
// soon as a call of that has been answered.
type onset struct {
	after time.Duration // from what it disturbs on, if no call is named
	call  string
	nth   int
}

func (o onset) String() string {
	switch {
	case o.call != "":
		return "once " + o.call + " has been answered"
	case o.after < 0:
		return o.after.String()[1:] + " before"
	}
	return o.after.String() + " after"
}

var onsets = []onset{
	{after: -5 * time.Minute},
	{call: "ledger.Load", nth: 1},
	{call: "ledger.Write", nth: 1}, // Begin
	{call: "issuer.Redeem", nth: 1},
	{call: "ledger.SaveResponse", nth: 1},
	{call: "ledger.Write", nth: 2}, // Decide
	{call: "secrets.Put", nth: 1},
	{call: "secrets.Promote", nth: 1},
	{after: 5 * time.Minute},
}
