package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/doctor"
	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/loopback"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

const invitationLifetime = invitations.DefaultLifetime

// setupFacts is everything from which the states of the steps follow.
type setupFacts struct {
	conn         token.Connection
	wanted       access // empty: not chosen
	company      string
	isAWS        bool
	dir          string // of the embedded store
	served       string // URL of the `serve` that runs on it; empty: none does
	secretPrefix string // in AWS
	// App credentials.
	credentials procore.Credentials // without a client id: none are stored
	appFault    error               // why stored ones cannot be used
	checked     doctor.Finding      // whether the login host accepts them
	redirects   []redirectURI
	// The connection. Without a revision there is none.
	rec     rotation.Record
	waiting bool              // a consent or token is saved and not decided yet
	open    *invitationAnswer // a link that can still be used
	// The first calls with its token.
	tokenFault error // why there is no token to call with
	probed     bool
	probe      procore.Probe
	refreshing *rotation.Refreshing // a refresh that has no result yet
	companies  []procore.Company
	listFault  error
	// What comes after.
	stored     bool   // there is a store
	production bool   // there are app credentials for production
	exposed    string // what other users of the machine can read
	protected  string // in AWS: whether the secret has a resource policy
}

// access is the kind of access that the steps are for.
func (f *setupFacts) access() access {
	if f.wanted != "" && !f.decided() {
		return f.wanted
	}
	return accessOf(f.rec)
}

// begun reports whether somebody has begun to connect: the connection is registered.
func (f *setupFacts) begun() bool { return f.rec.Revision != "" }

// decided reports whether the connection has a kind of access.
func (f *setupFacts) decided() bool {
	return f.rec.Status == rotation.Active || f.rec.Status == rotation.NeedsConsent
}

func (f *setupFacts) active() bool {
	return f.rec.Status == rotation.Active && !f.rec.Quarantined && (!f.rec.ServiceAccount || f.rec.Generation > 0)
}

// gather reads what is stored and checks what can be checked. It presents no token and
// changes nothing.
func (g *guide) gather(ctx context.Context) (*setupFacts, error) {
	f := &setupFacts{conn: g.conn, wanted: g.access, company: g.company, isAWS: g.c.store == "aws",
		redirects: []redirectURI{}, companies: []procore.Company{}}
	if !f.isAWS {
		dir, err := g.c.dataDir()
		if err != nil {
			return nil, err
		}
		f.dir, f.served = dir, servedAt(dir)
	}
	if g.in == nil {
		f.redirects = redirectURIs(ctx, f, localURL, nil)
		return f, nil
	}
	var err error
	var responses []rotation.TokenResponse
	if f.rec, responses, err = g.in.ledger.Load(ctx, g.conn); err != nil {
		return nil, err
	}
	if f.decided() && g.access != "" && g.access != accessOf(f.rec) {
		return nil, exitf(usage, "%s has another kind of access; choose another name, or leave out --access", g.conn)
	}
	f.waiting = f.rec.Status != rotation.Active && slices.ContainsFunc(responses, func(r rotation.TokenResponse) bool {
		role := rotation.RoleOf(f.rec, r) // spent and current ones are kept too
		return role == rotation.RoleConsent || role == rotation.RoleSuccessor && r.State == rotation.Saved
	})
	if f.rec.Pin != nil && f.rec.Pin.Company != "" {
		f.company = f.rec.Pin.Company
	}
	if err := g.gatherInvitations(ctx, f); err != nil {
		return nil, err
	}
	f.secretPrefix = g.in.secretPrefix
	d := doctor.New(doctor.Config{Issuer: g.in.issuer})
	app := g.gatherApp(ctx, f, d)
	f.redirects = redirectURIs(ctx, f, g.in.publicURL, d)
	if f.active() && app != nil {
		g.firstCalls(ctx, f, *app)
	}
	g.gatherExposure(ctx, f)
	return f, nil
}

func (g *guide) gatherApp(ctx context.Context, f *setupFacts, d *doctor.Doctor) *rotation.Application {
	_, err := storedCredentials(ctx, g.in, "production")
	f.production = err == nil
	f.credentials, err = storedCredentials(ctx, g.in, g.conn.Environment)
	if errors.Is(err, rotation.ErrNoApplication) {
		return nil
	}
	var app rotation.Application
	if err == nil {
		app, err = f.credentials.Application(g.conn.Environment)
	}
	if err != nil {
		f.appFault = err
		return nil
	}
	if f.credentials != g.accepted { // the login host is not asked again at each step
		f.checked = d.Credentials(ctx, app)
		if f.checked.Level == doctor.OK || f.checked.Level == doctor.Warning {
			g.accepted, g.acceptance = f.credentials, f.checked
		}
	} else {
		f.checked = g.acceptance
	}
	return &app
}

func (g *guide) gatherInvitations(ctx context.Context, f *setupFacts) error {
	list, err := g.in.invitations(ctx)
	for _, i := range list {
		if i.Connection == g.conn && i.State == "open" && (f.open == nil || i.ExpiresAt.After(f.open.ExpiresAt)) {
			f.open = &i
		}
	}
	return err
}

// firstCalls calls the API with the connection's token.
func (g *guide) firstCalls(ctx context.Context, f *setupFacts, app rotation.Application) {
	doc, err := g.in.published(ctx, g.conn)
	if err != nil {
		f.tokenFault = err
		return
	}
	ofToken := ""
	if f.rec.ServiceAccount {
		ofToken = doc.CompanyID
	}
	if f.companies, f.listFault = g.in.issuer.Companies(ctx, app, doc.AccessToken, ofToken); f.listFault != nil {
		f.companies = []procore.Company{}
	}
	if f.company == "" && len(f.companies) == 1 {
		f.company = f.companies[0].ID
	}
	f.probed, f.probe = true, g.in.issuer.Probe(ctx, app, doc.AccessToken, f.company)
	f.refreshing = g.in.settings.Refreshing(f.rec, time.Now())
}

// gatherExposure finds out who else can read what is stored.
func (g *guide) gatherExposure(ctx context.Context, f *setupFacts) {
	f.stored = true
	if f.isAWS {
		if !f.active() || g.in.protections == nil {
			return
		}
		switch protected, err := g.in.protections.Protected(ctx, g.conn); {
		case err != nil:
			f.protected = "whether the secret has a resource policy cannot be read"
		case protected:
			f.protected = "the secret of the access token has a resource policy"
		default:
			f.protected = "the secret of the access token has no resource policy: see tokenturn connection protect --help"
		}
		return
	}
	if runtime.GOOS == "windows" { // files have other permissions there
		return
	}
	for _, name := range []string{embedded.DatabaseName, embedded.KeyName} {
		info, err := os.Stat(filepath.Join(f.dir, name))
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			f.exposed = fmt.Sprintf("other users of this machine can reach %s (mode %04o)", filepath.Join(f.dir, name),
				info.Mode().Perm())
		}
	}
}

// redirectURI is one that the app can have for this installation.
type redirectURI struct {
	URI    string     `json:"uri"`
	Use    string     `json:"use"`
	State  setupState `json:"state"`
	Found  string     `json:"found"`  // what tokenturn could check
	Stored bool       `json:"stored"` // the app credentials have it
}

const (
	portalRedirect = "http://localhost" // the Developer Portal registers it with each app
	// toolRedirect is one for `connection authorize --loopback` beside a callback URL that
	// leads elsewhere.
	toolRedirect = "http://localhost:8765/callback"
	// linkRedirect is the place of the callback URL in the list.
	linkRedirect = 0
)

// redirectURIs lists the redirect URIs for this installation: the callback URL first.
func redirectURIs(ctx context.Context, f *setupFacts, public string, d *doctor.Doctor) []redirectURI {
	if f.access() == serviceAccount {
		return []redirectURI{}
	}
	environment, stored := f.conn.Environment, f.credentials.RedirectURI
	if !f.isAWS {
		public = linkBase(stored, environment, public)
	}
	callback := callbackURL(public, environment)
	local := loopback.IsLoopback(callback)
	uses := []redirectURI{{URI: callback, Use: "links (tokenturn connection invite)"}}
	if local {
		uses[0].Use += ", and the browser of this machine while tokenturn serve does not run"
	} else {
		uses = append(uses, redirectURI{URI: toolRedirect, Use: "tokenturn connection authorize --loopback=" + toolRedirect})
	}
	uses = append(uses,
		redirectURI{URI: portalRedirect, Use: "tokenturn connection authorize --loopback=" + portalRedirect +
			"; the Developer Portal registers it with each new app"},
		redirectURI{URI: procore.OutOfBand, Use: "tokenturn connection authorize, which takes a pasted code"})
	for i := range uses {
		u := &uses[i]
		u.Stored = u.URI == stored
		switch {
		case u.URI == procore.OutOfBand:
			u.State, u.Found = stepDone, "it needs nothing on this machine"
		case i == linkRedirect:
			u.State, u.Found = f.checkCallback(ctx, u.URI, local, d)
		default:
			u.State, u.Found = checkLoopback(u.URI)
		}
	}
	return uses
}

// checkCallback checks whether a server answers where links lead.
func (f *setupFacts) checkCallback(ctx context.Context, callback string, local bool,
	d *doctor.Doctor) (setupState, string) {
	address, err := url.Parse(callback)
	if err == nil && d != nil {
		err = d.Reach(ctx, address)
	}
	switch {
	case err == nil && d != nil:
		return stepDone, "its server answers"
	case local && f.served != "" && callback != callbackURL(f.served, f.conn.Environment):
		return stepTodo, fmt.Sprintf("no server answers there: tokenturn serve runs at %s; stop it, and start "+
			"tokenturn serve --addr localhost:%s in another terminal", f.served, cmp.Or(address.Port(), "80"))
	case local:
		return stepTodo, fmt.Sprintf("no server answers there yet: start tokenturn serve --addr localhost:%s in another "+
			"terminal", cmp.Or(address.Port(), "80"))
	}
	return stepProblem, fmt.Sprintf("its server does not answer (%v): check that the callback function is deployed at "+
		"this host, the host's DNS name and certificate, and that a proxy in front of the function keeps the Host header",
		err)
}

// checkLoopback checks whether this command can listen there.
func checkLoopback(address string) (setupState, string) {
	receiver, err := loopback.Listen(address, token.NewSecret(newState()))
	if err != nil {
		return stepProblem, fmt.Sprintf("this command cannot receive it here: %v", err)
	}
	receiver.Close()
	return stepDone, "this command can receive it here"
}

func (f *setupFacts) redirect(place int) redirectURI {
	if place >= len(f.redirects) {
		return redirectURI{State: stepNotNeeded}
	}
	return f.redirects[place]
}

// loopback is the redirect URI with which the browser of this machine can deliver the code:
// that of the app credentials if it leads here.
func (f *setupFacts) loopback() redirectURI {
	if stored := f.credentials.RedirectURI; loopback.IsLoopback(stored) {
		r := redirectURI{URI: stored, Stored: true}
		r.State, r.Found = checkLoopback(stored)
		return r
	}
	for _, r := range f.redirects {
		if loopback.IsLoopback(r.URI) {
			return r
		}
	}
	return redirectURI{State: stepNotNeeded} // a service account's
}
