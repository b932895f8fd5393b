package main

import (
	"fmt"
	"strings"

	"github.com/tokenturn/tokenturn/pkg/doctor"
	"github.com/tokenturn/tokenturn/pkg/loopback"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// The steps of the guide, in order. What they say about the Developer Portal is on these pages
// of Procore's documentation: building-apps-create-new, building-data-connection-apps,
// install-version-sandbox, oauth-keys, oauth-client-credentials, development-environments,
// verification-and-production-access and building-apps-manage-collabs.
const (
	stepAccess       = "access"
	stepApp          = "app"
	stepAccount      = "account"
	stepRedirectURIs = "redirect_uris"
	stepCredentials  = "credentials"
	stepInstall      = "install"
	stepConsent      = "consent"
	stepFirstCall    = "first_call"
	stepProduction   = "production"
	stepExposure     = "exposure"
)

// steps derives the steps from the facts. It asks nobody.
func (f *setupFacts) steps() []setupStep {
	steps := []setupStep{f.accessStep(), f.appStep(), f.accountStep(), f.redirectStep(), f.credentialsStep(),
		f.installStep(), f.consentStep(), f.firstCallStep()}
	for i := range steps {
		steps[i].Required = true
	}
	f.pass(steps)
	return append(steps, f.productionStep(), f.exposureStep())
}

// pass marks the steps that tokenturn cannot check, and that the person has left behind: what
// is known about a later step shows it.
func (f *setupFacts) pass(steps []setupStep) {
	behind := false
	for i := len(steps) - 1; i >= 0; i-- {
		s := &steps[i]
		s.Passed = s.State == stepUnchecked && behind
		known := s.State == stepDone || s.State == stepProblem || s.State == stepLater
		behind = behind || known || s.Step == stepConsent && f.begun()
	}
}

// required is the number of steps to the first API call.
func (f *setupFacts) required() (n int) {
	for _, s := range f.steps() {
		if s.Required {
			n++
		}
	}
	return n
}

func (f *setupFacts) hasCredentials() bool { return f.credentials.ClientID != "" }

func (f *setupFacts) custom() bool {
	_, own := procoreEnvironment(f.conn.Environment)
	return !own
}

// loginURL is the login host of the environment; empty if not known.
func (f *setupFacts) loginURL() string {
	return newAppAnswer(f.conn.Environment, f.credentials).LoginURL
}

func (f *setupFacts) accessStep() setupStep {
	s := setupStep{Step: stepAccess, Title: "Choose the kind of access", State: stepTodo,
		Found:    "nothing is chosen; these steps are for a user's consent",
		DoneWhen: "you know whether a person or the app itself acts in Procore"}
	for _, a := range accessAdvice {
		s.Do = append(s.Do, a.Case+" → "+a.Advice)
	}
	s.Do = append(s.Do, "How the two differ: tokenturn doctor --advise")
	kind := map[access]string{userAccess: "a user's consent", serviceAccount: "the app's service account"}[f.access()]
	switch {
	case f.decided():
		s.State, s.Found = stepDone, fmt.Sprintf("%s is %s", f.conn, kind)
	case f.wanted != "" || f.begun():
		s.State, s.Found = stepDone, kind+" is chosen"
	}
	return s
}

func (f *setupFacts) appStep() setupStep {
	s := setupStep{Step: stepApp, Title: "Create the app and its component in the Developer Portal", State: stepUnchecked,
		Found:    "there are no app credentials yet, and tokenturn cannot look into the Developer Portal",
		DoneWhen: "the Credentials tab of the app shows a client id and a client secret"}
	components := "In the group Data Connector, select User Level Authentication. Save"
	if f.access() == serviceAccount {
		components = "In the group Data Connector, select User Level Authentication and Service Account Authentication. " +
			"With Manage, give the service account the permissions that it needs, and no more. Save"
	}
	version := "Select Create Version, then Edit Components. " + components + ", and select Save Version"
	switch {
	case f.custom():
		s.Title = "Register the app at the server"
		s.Do = []string{f.conn.Environment + " is a custom environment: register an application at its server. For Procore " +
			"itself, use sandbox or production"}
		s.DoneWhen = "the server has given you a client id and a client secret"
	case f.conn.Environment == "sandbox":
		s.Do = []string{"Sign in at https://developers.procore.com, or sign up", "My Apps: select Create a New App", version}
	case f.conn.Environment == "federal":
		s.Do = []string{"The Federal Zone has a Developer Portal of its own, and answers U.S. addresses only. Register the " +
			"app there",
			"Add a version with a Data Connector component. " + components}
	default: // production and the monthly sandbox share one client id and secret
		s.Do = append([]string{"Begin with the developer sandbox, if you have not: tokenturn setup sandbox/" + f.conn.Name},
			productionPortal...)
		if f.access() == serviceAccount {
			s.Do = append(s.Do, "The version needs both Data Connector components: User Level Authentication and Service "+
				"Account Authentication")
		}
	}
	if f.hasCredentials() {
		s.State, s.Found = stepDone, fmt.Sprintf("the app has the client id %.80s", f.credentials.ClientID)
	}
	return s
}

// productionPortal is the way to production credentials.
var productionPortal = []string{
	"Have your organization verified in the Developer Portal, once",
	"Request production credentials for the app there. Procore approves each app",
	"Promote a version that has a Data Connector component. The client secret of production is shown once: paste it " +
		"into tokenturn app set production at that moment. A lost secret can only be reset, and Procore may revoke " +
		"every token that was issued with it",
}

func (f *setupFacts) accountStep() setupStep {
	s := setupStep{Step: stepAccount, Title: "Have an account to sign in with", State: stepUnchecked,
		Found: "nobody has signed in through this app yet"}
	at := "you can sign in at " + f.loginURL()
	switch f.conn.Environment {
	case "sandbox":
		s.Title = "Sign in to the Developer Sandbox"
		s.Do = []string{"Procore creates a Developer Sandbox with each app. Its Sandbox URL is on the tab App Details & " +
			"Versions of the app, and in the e-mail to the person who created the app",
			"Only that person has an account there at first, and is its administrator. Add others in the Company Directory"}
	case "monthly-sandbox":
		s.Do = []string{"Accounts and data are copied from production on the first working day of each month. Every " +
			"connection then needs a new consent"}
	case "production", "federal":
		s.Do = []string{"The account must have access to the company. For a user's consent, choose the account carefully: " +
			"programs get the permissions of that user"}
	default:
		s.Do = []string{"Have an account at the server of the environment"}
		at = "you can sign in there"
	}
	s.DoneWhen = at
	if f.active() {
		s.State, s.Found = stepDone, "the connection is active"
	} else if f.rec.Pin != nil {
		s.State, s.Found = stepDone, f.person()+" has connected it before"
	}
	return s
}

func (f *setupFacts) redirectStep() setupStep {
	s := setupStep{Step: stepRedirectURIs, Title: "Register the redirect URIs", State: stepUnchecked,
		Do: []string{"Register the redirect URIs that you want to use, on the Credentials tab of the app, exactly as they " +
			"are printed here: Procore compares them character by character"},
		DoneWhen: "the app has them. tokenturn cannot ask the Developer Portal: the first consent shows it, because " +
			"Procore shows an error page for a redirect URI that is not registered"}
	stored := f.credentials.RedirectURI
	if stored == "" {
		s.Found = "no redirect URI is stored yet; the next step stores the first one, or another one of yours"
	} else {
		s.Found = "the app credentials have " + stored
	}
	switch callback := f.redirect(linkRedirect).URI; {
	case f.access() == serviceAccount:
		s.State, s.Found = stepNotNeeded, "a service account needs none; app credentials take any redirect URI of the app"
		s.Do = nil
	case f.active():
		s.State, s.Found = stepDone, "the connection is active"
	case stored == "" || stored == procore.OutOfBand || stored == callback || loopback.IsLoopback(stored):
	default:
		s.State = stepProblem
		s.Found = fmt.Sprintf("the app credentials have %s, which does not lead to this installation", stored)
		s.Do = append(s.Do, fmt.Sprintf("Store %s, or %s: tokenturn app set %s", callback, procore.OutOfBand,
			f.conn.Environment))
	}
	return s
}

func (f *setupFacts) credentialsStep() setupStep {
	s := setupStep{Step: stepCredentials, Title: "Store the app credentials", State: stepTodo, Found: "none are stored",
		Do: []string{"Copy client id and client secret from the Developer Portal into: tokenturn app set " +
			f.conn.Environment + ". The secret is not shown and is in no argument or variable"},
		DoneWhen: "the login host accepts them; tokenturn checks this with a made-up code and stores nothing that is refused"}
	if f.conn.Environment == "monthly-sandbox" {
		s.Do = append(s.Do, "They are those of production, stored once more")
	}
	switch {
	case f.appFault != nil:
		s.State, s.Found = stepProblem, "the stored ones cannot be used: "+f.appFault.Error()
	case !f.hasCredentials():
	case f.checked.Level == doctor.OK:
		s.State, s.Found = stepDone, f.checked.Detail
	case f.checked.Level == doctor.Problem:
		s.State, s.Found = stepProblem, f.checked.Detail
		s.Do = append(s.Do, f.checked.Remedy)
	case f.checked.Level == doctor.Warning: // the second client secret is accepted, so everything works
		s.State, s.Found = stepDone, f.checked.Detail+": "+f.checked.Remedy
		s.Do = []string{f.checked.Remedy}
	default:
		s.State, s.Found = stepLater, f.checked.Detail
		s.Do = append(s.Do, f.checked.Remedy)
	}
	return s
}

func (f *setupFacts) installStep() setupStep {
	s := setupStep{Step: stepInstall, Title: "Install the app in the company", State: stepUnchecked,
		Found:    "it can be checked once there is a token",
		DoneWhen: "App Management in the company lists the app, and a call for the company does not answer 403"}
	key := "Production App Version Key"
	if f.conn.Environment == "sandbox" {
		key = "Sandbox App Version Key"
	}
	if f.custom() {
		s.Do = []string{"Let the app into the company, if the server asks for it"}
	} else {
		s.Do = []string{"As an administrator of the company: Company Tools > Admin > App Management > Install App > " +
			"Install Custom App. Paste the " + key + " of the version from the Developer Portal, and confirm"}
	}
	if f.access() == serviceAccount {
		s.Do = append(s.Do, "Choose the projects in which the service account may work. After each update or "+
			"reinstallation they must be chosen again")
	}
	if !f.custom() {
		s.Do = append(s.Do, "The id of the company is in the address of its pages, as in "+
			"https://app.procore.com/4264807/company/home/list")
	}
	if f.conn.Environment == "monthly-sandbox" {
		s.Do = append(s.Do, "An app that is installed in production gets there with the next monthly copy")
	}
	switch remedy := ""; {
	case !f.probed:
	case f.company == "" && f.listFault != nil:
		s.State, s.Found = stepLater, f.listFault.Error()
	case f.company == "" && len(f.companies) == 0:
		s.State, s.Found = stepProblem, "the token sees no company"
		s.Do = append(s.Do, "Give the user access to the company in Procore")
	case f.company == "":
		s.State = stepTodo
		s.Found = fmt.Sprintf("the token sees %d companies, and none is stored with the connection; name the one to check "+
			"with --company, each time", len(f.companies))
	case f.probe.Health == procore.Works:
		s.State, s.Found = stepDone, "the token works in company "+f.company
	case f.probe.Health == procore.NotInstalled || f.probe.Health == procore.NoAccess:
		_, remedy = doctor.Advice(f.probe, f.rec, f.refreshing)
		s.State, s.Found = stepProblem, f.probe.Detail
		s.Do = append(s.Do, remedy)
		if f.rec.ServiceAccount {
			s.Do = append(s.Do, fmt.Sprintf("If it should be another company: tokenturn connection disconnect %s, and then "+
				"tokenturn setup %[1]s", f.conn))
		}
	default:
		s.State, s.Found = stepLater, f.probe.Detail
	}
	return s
}

func (f *setupFacts) consentStep() setupStep {
	s := setupStep{Step: stepConsent, Title: "Get the first consent", State: stepTodo, Found: "nobody has consented yet",
		DoneWhen: "the connection is active, in tokenturn connection list"}
	company := ""
	if f.company != "" {
		company = " --company " + f.company
	}
	conn := f.conn.String()
	s.Do = []string{
		"With a link for another person: tokenturn connection invite " + conn + company,
		"In the browser of this machine: tokenturn connection authorize " + conn + company + " --loopback=" +
			f.loopback().URI,
		"In any browser, with a code to paste: tokenturn connection authorize " + conn + company,
	}
	if f.access() == serviceAccount {
		s.Title, s.Found = "Connect the service account", "it is not connected yet"
		if company == "" {
			company = " --company ID"
		}
		s.Do = []string{"tokenturn connection service-account " + conn + company}
	}
	switch failure := f.rec.Failure(); {
	case f.active():
		s.State, s.Found = stepDone, fmt.Sprintf("active, %s", f.whose())
	case f.rec.Quarantined:
		s.State, s.Found = stepProblem, quarantineAdvice(f.conn)
	case f.rec.Status == rotation.NeedsConsent:
		s.Found = "Procore no longer accepts its refresh token"
	case failure != nil:
		s.Found = failure.Summary()
	case f.waiting:
		s.Found = "a consent is saved and not completed yet; the next run completes it"
	case f.open != nil:
		s.Found = "a link is open until " + stamp(f.open.ExpiresAt) + "; nobody has used it yet"
	case f.rec.Status == rotation.Disconnected:
		s.Found = "it is disconnected"
	}
	return s
}

func (f *setupFacts) whose() string {
	if f.rec.ServiceAccount {
		return "as the service account in company " + f.company
	}
	return "with the consent of " + f.person()
}

func (f *setupFacts) firstCallStep() setupStep {
	s := setupStep{Step: stepFirstCall, Title: "Make the first API calls", State: stepTodo, Found: "there is no token yet",
		Do: []string{"tokenturn calls GET /rest/v1.0/me and GET /rest/v1.0/companies with the token, as this command does " +
			"each time"},
		DoneWhen: "both answer"}
	switch {
	case f.tokenFault != nil:
		s.State, s.Found = stepLater, f.tokenFault.Error()
	case !f.probed:
	case f.listFault != nil:
		s.State, s.Found = stepLater, f.listFault.Error()
	case f.probe.Health == procore.Works:
		s.State, s.Found = stepDone, fmt.Sprintf("/rest/v1.0/me answers for %s; /rest/v1.0/companies lists %s", f.caller(),
			f.companyList())
	default:
		level, remedy := doctor.Advice(f.probe, f.rec, f.refreshing)
		s.State, s.Found = stepProblem, f.probe.Detail
		if level == doctor.Later {
			s.State = stepLater
		}
		s.Do = append(s.Do, remedy)
	}
	return s
}

func (f *setupFacts) caller() string {
	if f.rec.ServiceAccount {
		return "the service account"
	}
	return f.person()
}

func (f *setupFacts) person() string { return strings.Replace(f.rec.Pin.Whose(), "The ", "the ", 1) }

// shownCompanies is how many companies a line lists.
const shownCompanies = 5

func (f *setupFacts) companyList() string {
	var names []string
	for _, one := range f.companies[:min(len(f.companies), shownCompanies)] {
		names = append(names, strings.TrimSpace(one.ID+" "+one.Name))
	}
	list := counted(len(f.companies), "company", "companies")
	if len(names) > 0 {
		list += ": " + strings.Join(names, ", ")
	}
	if len(f.companies) > shownCompanies {
		list += ", ..."
	}
	return list
}

func (f *setupFacts) productionStep() setupStep {
	s := setupStep{Step: stepProduction, Title: "What differs in production", State: stepTodo,
		Found: "there are no app credentials for production",
		Do: append(append([]string{}, productionPortal...),
			"Production has redirect URIs, credentials, codes and tokens of its own. Nothing of a sandbox works there",
			"An administrator of each company installs the app with the Production App Version Key, or from the "+
				"Marketplace",
			"Then: tokenturn setup production/"+f.conn.Name),
		DoneWhen: "tokenturn setup production/" + f.conn.Name + " says that it is complete"}
	switch {
	case f.custom():
		s.State, s.Found, s.Do = stepNotNeeded, f.conn.Environment+" is a custom environment", nil
	case f.conn.Environment == "federal":
		s.State, s.Found, s.Do = stepNotNeeded, "the Federal Zone has no sandboxes", nil
	case f.conn.Environment == "production" || f.conn.Environment == "monthly-sandbox":
		s.State, s.Found = stepNotNeeded, "these are production's app credentials"
	case f.production:
		s.State, s.Found = stepUnchecked, "there are app credentials for production"
	}
	return s
}

func (f *setupFacts) exposureStep() setupStep {
	s := setupStep{Step: stepExposure, Title: "Who else can see the credentials", State: stepUnchecked,
		DoneWhen: "you know everyone on these lists"}
	if !f.custom() {
		s.Do = []string{"Collaborators of the app in the Developer Portal (section Collaborators): the client secret of " +
			"the sandbox stays visible there, and the secret of production can be reset"}
	}
	if f.isAWS {
		s.Do = append(s.Do,
			"AWS identities that may read secrets: "+f.secretPrefix+"/app/* has the client secrets, "+f.secretPrefix+
				"/connection/* the access tokens",
			"AWS identities that may decrypt with the sealing key, or change the rotate function: they can get the refresh "+
				"tokens")
		s.Found = "tokenturn cannot list them"
		if f.protected != "" {
			s.Found = f.protected
		}
	} else {
		s.Do = append(s.Do, "Everyone who can read "+f.dir+", and everyone with backups of both its database and its key "+
			"file: keep the backups apart")
		switch s.Found = "nothing is stored yet"; {
		case f.exposed != "":
			s.State, s.Found = stepProblem, f.exposed
		case f.stored:
			s.Found = "the files in " + f.dir + " are for their owner only"
		}
	}
	s.Do = append(s.Do, "Everyone who has a link of tokenturn connection invite, until it is used, revoked or expired")
	return s
}
