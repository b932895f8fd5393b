package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
)

// From nothing to the first API call, with every kind of mistake on the way: the run is
// interrupted twice, the client secret is wrong once, and a redirect URI is not registered.
func TestSetup(t *testing.T) {
	t.Parallel()
	s := newMachine(t)
	if err := os.RemoveAll(filepath.Join(s.home, ".local")); err != nil { // newMachine has stored app credentials
		t.Fatal(err)
	}
	redirect := s.receives("/callback/demo")
	s.app.RedirectURIs = []string{procoretest.OutOfBand} // of the printed ones, the person registers one
	s.standIn.Register(s.app)
	const enter = "\n"

	// It is interrupted where the secret is typed.
	session := s.start("setup")
	session.sees("Connection [sandbox/acme]: ")
	session.types("Demo/Acme\n")
	session.sees("is not of the form")
	session.types("demo/acme\n")
	session.sees("Step 1 of 8: Choose the kind of access")
	session.sees("Kind of access [1]: ")
	session.types("3\n")
	session.sees("Type a number from 1 to 2.")
	session.types(enter)
	session.sees("Step 2 of 8: Register the app at the server")
	session.sees("Press Enter when this is done: ")
	session.types(enter)
	session.sees("Step 3 of 8: Have an account")
	session.seesAgain("Press Enter when this is done: ", 1)
	session.types(enter)
	session.sees("Step 4 of 8: Register the redirect URIs")
	session.sees("http://localhost:8080/callback/demo")
	session.sees("urn:ietf:wg:oauth:2.0:oob")
	session.seesAgain("Press Enter when this is done: ", 2)
	session.types(enter)
	session.sees("Step 5 of 8: Store the app credentials")
	session.sees("Client ID: ")
	session.types(s.app.ClientID + "\n")
	session.sees("Client secret (not shown): ")
	session.types("\x03")
	exit, shown := session.ends()
	if exit == done || !strings.Contains(shown, "what was done is kept; continue with: tokenturn setup demo/acme") {
		t.Errorf("interrupted: exit code %d; shown:\n%s", exit, shown)
	}

	// It begins at the first step that nothing shows to be done. A wrong secret is asked again.
	session = s.start("setup", "demo/acme", "--access", "user")
	for n := range 3 {
		session.seesAgain("Press Enter when this is done: ", n)
		session.types(enter)
	}
	credentials := func(secret string, times int) {
		for _, answer := range [][2]string{{"Client ID: ", s.app.ClientID}, {"Client secret (not shown): ", secret},
			{"Redirect URI [http://localhost:8080/callback/demo]: ", redirect},
			{"such as https://login.example.com: ", s.standIn.URL}, {"such as https://api.example.com: ", s.standIn.URL}} {
			session.seesAgain(answer[0], times)
			session.types(answer[1] + "\n")
		}
	}
	credentials("wrong-secret", 0)
	session.sees("does not accept client id")
	credentials(s.app.ClientSecret.Reveal(), 1)
	session.sees("done: Store the app credentials: " + s.standIn.URL + " accepts client id and secret")
	session.sees("Step 6 of 8: Install the app in the company")
	session.sees("Id of the company (Enter if it is not known yet): ")
	session.types("acme\n")
	session.sees("The id of a company is a number")
	session.types("4264807\n")
	session.seesAgain("Press Enter when this is done: ", 3)
	session.types(enter)
	session.sees("Step 7 of 8: Get the first consent")
	session.sees("Way [3]: ")
	// The redirect URI is not registered: the browser does not come back.
	session.types("2\n")
	session.sees("If Procore shows an error page, the app does not have the redirect URI " + redirect + ": press Ctrl-C")
	session.sees("that redirect URI is not registered.")
	if page, err := http.Get(authorizeAddress.FindString(session.shown)); err != nil ||
		page.StatusCode != http.StatusBadRequest {
		t.Fatalf("the authorization page: %v, %v", page, err)
	}
	session.types("\x03")
	if exit, shown := session.ends(); exit == done || !strings.Contains(shown,
		"continue with: tokenturn setup demo/acme") {
		t.Errorf("interrupted: exit code %d; shown:\n%s", exit, shown)
	}

	// The checklist says the same, and prompts for nothing.
	if exit, said := s.pipe("", "setup", "demo/acme", "--json"); exit != needsConsent ||
		!strings.Contains(said, `"next": "consent"`) || !strings.Contains(said, `"complete": false`) {
		t.Errorf("checklist: exit code %d; said:\n%s", exit, said)
	}

	// The third run ends with the first calls.
	session = s.start("setup", "--company", "4264807")
	session.sees("Connection [demo/acme]: ")
	session.types(enter)
	session.sees("unchecked: Register the redirect URIs: the app credentials have " + redirect)
	session.sees("done: Store the app credentials")
	session.sees("Way [3]: ")
	session.types("1\n")
	session.sees("To revoke it: tokenturn invitation revoke")
	session.sees("a link is open until")
	session.sees("Way [4]: ")
	session.types(enter)
	session.seesAgain("Way [4]: ", 1)
	session.types("3\n")
	code := s.allow(session.person, codeQuestion)
	session.types(code.Reveal() + "\n")
	exit, shown = session.ends()
	for _, want := range []string{"demo/acme is connected: Procore user 160586 in company 4264807",
		"done: Install the app in the company: the token works in company 4264807",
		"done: Make the first API calls: /rest/v1.0/me answers for pat@example.com (Procore user 160586); " +
			"/rest/v1.0/companies lists 1 company: 4264807 Company 4264807",
		"Who else can see the credentials", "The setup of demo/acme is complete"} {
		if !strings.Contains(shown, want) {
			t.Errorf("the end does not say %q", want)
		}
	}
	if exit != done || strings.Contains(shown, "wrong-secret") || t.Failed() {
		t.Errorf("exit code %d; shown:\n%s", exit, shown)
	}
	if exit, said := s.pipe("", "setup", "--json"); exit != done || !strings.Contains(said, `"complete": true`) {
		t.Errorf("afterwards: exit code %d; said:\n%s", exit, said)
	}
	for _, words := range []string{"Programs read the token with: tokenturn ", "To check everything: tokenturn "} {
		_, after, found := strings.Cut(shown, words)
		command := strings.Fields(strings.SplitN(after, "\n", 2)[0])
		cmd := exec.CommandContext(t.Context(), s.program, command...) // one of them prints the token
		cmd.Env = s.environ
		if err := cmd.Run(); !found || err != nil {
			t.Errorf("%s%v: %v", words, command, err)
		}
	}

	// The consent is withdrawn. Nothing is in progress that could be looked for.
	s.standIn.RevokeAll(s.app.ClientID, procoretest.DefaultUser().Login)
	if exit, said := s.pipe("", "connection", "rotate", "demo/acme"); exit != needsConsent {
		t.Fatalf("rotate: exit code %d; said:\n%s", exit, said)
	}
	session = s.start("setup", "demo/acme")
	session.sees("Now: Procore no longer accepts its refresh token.")
	session.sees("Way [3]: ")
	session.types("\x03")
	session.ends()
}

// A service account needs no redirect URI and no person, but an installation.
func TestSetupOfAServiceAccount(t *testing.T) {
	t.Parallel()
	s := newMachine(t)
	session := s.start("setup", "demo/sync")
	session.sees("Step 1 of 8: Choose the kind of access")
	session.sees("Kind of access [1]: ")
	session.types("2\n")
	session.sees("unchecked: Have an account")
	session.sees("not needed: Register the redirect URIs")
	session.sees("Step 6 of 8: Install the app in the company")
	session.sees("Id of the company: ")
	session.types("4264807\n")
	session.sees("Press Enter when this is done: ")
	session.types("\n")
	session.sees("Step 7 of 8: Connect the service account")
	session.sees("Press Enter to connect: ")
	session.types("\n")
	session.sees("unauthorized_client") // the version has no such component yet
	s.app.ServiceAccount = []int64{4264807}
	s.standIn.Register(s.app)
	session.seesAgain("Press Enter to connect: ", 1)
	session.types("\n")
	if exit, shown := session.ends(); exit != done || !strings.Contains(shown, "The setup of demo/sync is complete: "+
		"/rest/v1.0/me answers for the service account; /rest/v1.0/companies lists 1 company") {
		t.Errorf("exit code %d; shown:\n%s", exit, shown)
	}
	if exit, said := s.pipe("", "setup", "demo/sync", "--access", "user"); exit != usage || !strings.Contains(said,
		"demo/sync has another kind of access") {
		t.Errorf("another kind: exit code %d; said:\n%s", exit, said)
	}
}

// Which of several companies was meant is not stored: the guide says how to name it again.
func TestSetupWithSeveralCompanies(t *testing.T) {
	t.Parallel()
	user := procoretest.DefaultUser()
	user.Companies = append(user.Companies, 4264808)
	s := newMachine(t, procoretest.WithUser(user))
	s.connects("demo/acme")
	session := s.start("setup", "demo/acme")
	session.sees("Id of the company [4264807]: ")
	session.types("4264808\n")
	exit, shown := session.ends()
	_, again, found := strings.Cut(shown, "To check the setup again, name it: tokenturn ")
	if exit != done || !found {
		t.Fatalf("exit code %d; shown:\n%s", exit, shown)
	}
	if exit, said := s.pipe("", "setup", "demo/acme"); exit != failed || !strings.Contains(said,
		"none is stored with the connection; name the one to check with --company, each time") {
		t.Errorf("without the company: exit code %d; said:\n%s", exit, said)
	}
	command := strings.Fields(strings.SplitN(again, "\n", 2)[0])
	if exit, said := s.pipe("", command...); exit != done {
		t.Errorf("%v: exit code %d; said:\n%s", command, exit, said)
	}
}
