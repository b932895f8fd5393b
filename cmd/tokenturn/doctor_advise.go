package main

import (
	"context"
	"fmt"
	"io"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// access is a kind of access to Procore.
type access string

const (
	// userAccess: a person consents, and the app acts for that person.
	userAccess access = "user"
	// serviceAccount: the app acts for itself, with a developer-managed service account.
	serviceAccount access = "service_account"
)

func accessOf(r rotation.Record) access {
	if r.ServiceAccount {
		return serviceAccount
	}
	return userAccess
}

// adviceAnswer is what `doctor --advise --json` answers.
type adviceAnswer struct {
	Advice      []advice           `json:"advice"`
	Differences []difference       `json:"differences"`
	Connections []connectionAdvice `json:"connections"`
}

// advice says which kind of access fits a case.
type advice struct {
	Case   string `json:"case"`
	Access access `json:"access"` // "both" if a company needs one of each
	Advice string `json:"advice"`
	Source string `json:"source"` // page of Procore's documentation
}

const bothAccesses access = "both"

// difference compares the two kinds of access.
type difference struct {
	Question       string `json:"question"`
	User           string `json:"user"`
	ServiceAccount string `json:"service_account"`
	Source         string `json:"source"`
}

// connectionAdvice is advice about an existing connection.
type connectionAdvice struct {
	Connection token.Connection `json:"connection"`
	Access     access           `json:"access"`
	Advice     string           `json:"advice"`
}

// The README has the same table; a test compares them.
var accessAdvice = []advice{
	{"Programs run with nobody signed in: sync jobs, reports, webhook handlers", serviceAccount,
		"connect the app's service account in each company", chooseGrantPage},
	{"The app acts for a person, with that person's permissions", userAccess, "have the person consent",
		chooseGrantPage},
	{"Both", bothAccesses, "one connection of each kind, with the same app credentials; find companies and projects as " +
		"the user, and do the background work as the service account", chooseGrantPage},
	{"The company's administrator refuses the permissions of the service account", userAccess,
		"declare fewer permissions, or have a person consent who has the permissions that the programs need",
		dataConnectorPage},
}

const (
	chooseGrantPage   = "https://developers.procore.com/documentation/content/oauth-choose-grant-type"
	dataConnectorPage = "https://developers.procore.com/documentation/content/building-data-connection-apps"
	dmsaPage          = "https://developers.procore.com/documentation/content/developer-managed-service-accounts"
	clientGrantPage   = "https://developers.procore.com/documentation/content/oauth-client-credentials"
	faqPage           = "https://developers.procore.com/documentation/content/faq"
)

var accessDifferences = []difference{
	{"What does the app need in the Developer Portal?",
		"the component User Level Authentication",
		"Service Account Authentication beside it; it cannot be used alone. Both use one client id and secret",
		dataConnectorPage},
	{"What may the app do?",
		"what the user may do",
		"what the app's version declares, in the projects that the company's administrator permits; the administrator " +
			"permits them again after each update or reinstallation of the app",
		dmsaPage},
	{"In which companies does a connection work?",
		"in those of the user that have installed the app",
		"in one company that has installed the app; every call names it (Procore-Company-Id)",
		clientGrantPage},
	{"Is there a refresh token that can be lost?",
		"yes: it works once, and a lost answer can end the access",
		"no: the app gets each access token with its client id and secret",
		faqPage},
	{"When must a person act again?",
		"when the user withdraws the consent, or the refresh token is lost or no longer accepted",
		"never to consent; an administrator if the app was uninstalled or projects are missing",
		dmsaPage},
}

// advise says which kind of access a company needs. It calls nothing at Procore.
func (c *cli) advise(ctx context.Context) error {
	a := adviceAnswer{Advice: accessAdvice, Differences: accessDifferences, Connections: []connectionAdvice{}}
	err := c.withAny(ctx, func(in *installation) error {
		if in == nil {
			return nil
		}
		records, err := in.ledger.List(ctx)
		for _, r := range records {
			if r.Status != rotation.Disconnected {
				a.Connections = append(a.Connections, adviceOn(r))
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	for i := range a.Connections {
		a.Connections[i].Advice = c.withStore(a.Connections[i].Advice)
	}
	return c.answer(a, a.print)
}

func adviceOn(r rotation.Record) connectionAdvice {
	a := connectionAdvice{r.Connection, accessOf(r), ""}
	company := ""
	if r.Pin != nil {
		company = r.Pin.Company
	}
	switch {
	case r.ServiceAccount:
		a.Advice = fmt.Sprintf("fits programs in company %s that run with nobody signed in", orDash(company))
	case r.Status == rotation.Pending:
		a.Advice = "nobody has consented yet; see above whether it has to be a person"
	case company == "":
		a.Advice = fmt.Sprintf("fits programs that act for this user. If they run with nobody signed in, replace the "+
			"consent by a service account in one company: tokenturn connection convert %s --to service-account "+
			"--company ID; to keep the consent, connect a service account in each company under another name: "+
			"tokenturn connection service-account %s --company ID", r.Connection, beside(r.Connection))
	default:
		a.Advice = fmt.Sprintf("fits programs that act for this user. If they run with nobody signed in, replace the "+
			"consent by a service account: tokenturn connection convert %s --to service-account; to keep the consent, "+
			"connect a service account under another name: tokenturn connection service-account %s --company %s", r.Connection,
			beside(r.Connection), company)
	}
	return a
}

// beside is the name of a second connection for the same programs.
func beside(c token.Connection) token.Connection {
	const room = 50 // for a suffix
	return token.Connection{Environment: c.Environment, Name: c.Name[:min(len(c.Name), room)] + "-app"}
}

func (a adviceAnswer) print(w io.Writer) {
	kinds := map[access]string{userAccess: "user", serviceAccount: "service account", bothAccesses: "both"}
	prose(w, "Which kind of access does a company need?\n")
	for _, one := range a.Advice {
		prose(w, "\n%s\n  → %s: %s\n  source: %s\n", one.Case, kinds[one.Access], one.Advice, one.Source)
	}
	prose(w, "\nHow the two differ\n")
	for _, d := range a.Differences {
		prose(w, "\n%s\n  user: %s\n  service account: %s\n  source: %s\n", d.Question, d.User,
			d.ServiceAccount, d.Source)
	}
	if len(a.Connections) > 0 {
		prose(w, "\nThe connections of this installation\n")
	}
	for _, one := range a.Connections {
		prose(w, "\n%s: %s\n  → %s\n", one.Connection, kinds[one.Access], one.Advice)
	}
}
