package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// settings reports settings that contradict each other.
func (d *Doctor) settings(context.Context) []Finding {
	if err := d.Settings.Validate(); err != nil {
		return []Finding{{"settings", "", Problem, err.Error(), "correct these settings, both for the functions and for " +
			"this command"}}
	}
	return []Finding{{"settings", "", OK, fmt.Sprintf("stack %s, a sweep every %v", d.Settings.Stack, d.Settings.Cadence),
		""}}
}

// keys makes a data key and opens it again.
func (d *Doctor) keys(ctx context.Context) []Finding {
	key, wrapped, err := d.Sealer.DataKey(ctx)
	if err != nil {
		return []Finding{{"keys", "", Problem, "no data key can be made, so nothing can be saved: " + err.Error(),
			"check that the sealing key exists, is enabled, and may be used"}}
	}
	opened, err := d.Sealer.Unwrap(ctx, wrapped)
	if err == nil && !bytes.Equal(key, opened) {
		err = errors.New("the opened key differs from the one that was made")
	}
	if err != nil {
		return []Finding{{"keys", "", Problem, "a data key that was just made cannot be opened, so no pair can be rotated: " +
			err.Error(),
			"check that the sealing key may be used for decryption, and that the stack id is right"}}
	}
	return []Finding{{"keys", "", OK, "data keys can be made and opened", ""}}
}

// schedule finds connections that a sweep should have handled long ago. A sweep that
// finds nothing due writes nothing, so overdue connections are the only sign that the
// schedule does not run.
func (d *Doctor) schedule(records []rotation.Record, err error) []Finding {
	if err != nil {
		return []Finding{{"schedule", "", Problem, "the connections cannot be read: " + err.Error(),
			"check that this command can reach and read the ledger"}}
	}
	now, active := d.Now(), 0
	var last time.Time
	var overdue []rotation.Record
	for _, r := range records {
		if r.Status == rotation.Active {
			active++
		}
		if r.RotatedAt.After(last) {
			last = r.RotatedAt
		}
		if !r.DueAt.IsZero() && r.DueAt.Add(d.Settings.Cadence+d.grace()).Before(now) {
			overdue = append(overdue, r)
		}
	}
	switch {
	case len(overdue) > 0:
		oldest := slices.MinFunc(overdue, func(a, b rotation.Record) int { return a.DueAt.Compare(b.DueAt) })
		return []Finding{{"schedule", "", Problem, fmt.Sprintf("%d connections are overdue by more than a sweep, %s since %s",
			len(overdue), oldest.Connection, oldest.DueAt.UTC().Format(time.RFC3339)),
			"check that the schedule runs: on AWS, see the schedule and the log of the rotate function; on one machine, " +
				"`tokenturn serve`"}}
	case active == 0:
		return []Finding{{"schedule", "", OK,
			"there is no active connection, so this check cannot see whether the schedule runs", ""}}
	}
	return []Finding{{"schedule", "", OK, fmt.Sprintf("nothing is overdue; the last rotation was at %s",
		last.UTC().Format(time.RFC3339)), ""}}
}

// grace is how long a due connection may take if everything works.
func (d *Doctor) grace() time.Duration { return d.Settings.Lease + d.Settings.Quiet + 5*time.Minute }

// application is an environment's app credentials, or the reason why there are none.
type application struct {
	name string
	app  rotation.Application
	err  error
}

// applications reads the app credentials of Procore's environments that have
// credentials, and of all environments that have connections.
func (d *Doctor) applications(ctx context.Context, records []rotation.Record) (names []string,
	apps map[string]application, findings []Finding) {
	wanted := map[string]bool{}
	for _, r := range records {
		if r.Status != rotation.Disconnected {
			wanted[r.Connection.Environment] = true
		}
	}
	apps = map[string]application{}
	for _, e := range procore.Environments() {
		wanted[e.Name] = wanted[e.Name] || false
	}
	none := "there are no connections, and no app credentials of Procore's environments; credentials of a custom " +
		"environment are checked once it has a connection"
	if d.Environments != nil {
		none = "there are no app credentials"
		stored, err := d.Environments(ctx)
		if err != nil {
			findings = []Finding{{"app", "", Problem, "the environments with app credentials cannot be listed: " + err.Error(),
				"check that this command can read the store"}}
		}
		for _, name := range stored {
			wanted[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		within, cancel := context.WithTimeout(ctx, patience)
		app, err := d.Applications.Application(within, name)
		cancel()
		if errors.Is(err, rotation.ErrNoApplication) && !wanted[name] {
			continue // an environment that nobody uses
		}
		names, apps[name] = append(names, name), application{name, app, err}
	}
	if len(names) == 0 && findings == nil {
		findings = []Finding{{"app", "", Warning, none, "store them with: tokenturn app set sandbox"}}
	}
	return names, apps, findings
}

// application checks one app's credentials, redirect URI and clock.
func (d *Doctor) application(ctx context.Context, a application) []Finding {
	if a.err != nil {
		return []Finding{{"app", a.name, Problem, "no usable app credentials: " + a.err.Error(),
			"store them with: tokenturn app set " + a.name}}
	}
	return append([]Finding{d.Credentials(ctx, a.app), d.redirect(ctx, a.app)}, d.clock(ctx, a.app)...)
}

// Credentials checks whether the login host accepts an app's client id and secret.
func (d *Doctor) Credentials(ctx context.Context, app rotation.Application) Finding {
	err := d.Issuer.CheckCredentials(ctx, app)
	if errors.Is(err, rotation.ErrCredentialsRefused) && !app.SecondSecret.IsZero() {
		second := app
		second.ClientSecret = app.SecondSecret
		if err = d.Issuer.CheckCredentials(ctx, second); err == nil {
			return Finding{"app", app.Environment, Warning, app.LoginURL + " accepts the second client secret only",
				"each run presents the refused one first; store the other one alone with: tokenturn app set " + app.Environment}
		}
	}
	switch {
	case errors.Is(err, rotation.ErrCredentialsRefused):
		return Finding{"app", app.Environment, Problem, app.LoginURL + " does not accept the client id with this secret",
			"compare both with the Developer Portal, then run: tokenturn app set " + app.Environment}
	case err != nil:
		return Finding{"app", app.Environment, Later, err.Error(), "check that this machine can reach " + app.LoginURL +
			", and try again later"}
	}
	return Finding{"app", app.Environment, OK, app.LoginURL + " accepts client id and secret", ""}
}

// clockTolerance is the largest harmless difference between two clocks: less than the
// margin that every rotation keeps.
const clockTolerance = 20 * time.Second

func (d *Doctor) clock(ctx context.Context, app rotation.Application) []Finding {
	theirs, err := d.Issuer.ServerTime(ctx, app)
	if err != nil {
		return nil // the check of the credentials reports this
	}
	off := d.Now().Sub(theirs).Round(time.Second)
	if off.Abs() > clockTolerance {
		return []Finding{{"clock", app.Environment, Warning, fmt.Sprintf(
			"this machine's clock differs by %v from the clock of %s", off, app.LoginURL),
			"synchronize the clock with NTP; tokenturn counts due times from the earlier clock"}}
	}
	return []Finding{{"clock", app.Environment, OK, fmt.Sprintf("within %v of %s", clockTolerance, app.LoginURL), ""}}
}

// redirect checks that the app's redirect URI leads to the callback function.
func (d *Doctor) redirect(ctx context.Context, app rotation.Application) Finding {
	found := func(level Level, detail, remedy string) Finding {
		return Finding{"redirect", app.Environment, level, detail, remedy}
	}
	if app.RedirectURI == procore.OutOfBand {
		return found(OK, "out of band: people paste a code; tokenturn cannot make invitations for this environment", "")
	}
	u, err := url.Parse(app.RedirectURI)
	if err != nil {
		return found(Problem, "the redirect URI is not a URL", "store a correct one with: tokenturn app set "+app.Environment)
	}
	if u.Scheme == "https" && d.PublicURL != "" && app.RedirectURI != d.PublicURL+"/callback/"+app.Environment {
		return found(Problem, fmt.Sprintf("%s does not lead to this installation at %s", app.RedirectURI, d.PublicURL),
			fmt.Sprintf("register %s/callback/%s in the Developer Portal and store it with: tokenturn app set %[2]s",
				d.PublicURL, app.Environment))
	}
	err = d.Reach(ctx, u)
	if err == nil && u.Path != "/callback/"+app.Environment {
		return found(Warning,
			fmt.Sprintf("a server answers at %s, and that is not the page where links end", app.RedirectURI),
			fmt.Sprintf("register %s://%s/callback/%s in the Developer Portal and store it with: tokenturn app set %[3]s; "+
				"or connect with `tokenturn connection authorize`, which needs no link", u.Scheme, u.Host, app.Environment))
	}
	if err == nil {
		return found(OK, "the server of "+app.RedirectURI+" answers", "")
	}
	if u.Scheme == "http" {
		detail := "no server answers at " + app.RedirectURI
		if app.RedirectURI != fmt.Sprintf("http://localhost:%s/callback/%s", u.Port(), app.Environment) {
			return found(Warning, detail, "connect with `tokenturn connection authorize`, which needs no link")
		}
		return found(Warning, detail, fmt.Sprintf("start its server with `tokenturn serve --addr localhost:%s` on that "+
			"machine, instead of one at another address, or connect with `tokenturn connection authorize`, which needs no "+
			"link", u.Port()))
	}
	return found(Problem, fmt.Sprintf("people who allow access cannot return to tokenturn: %v", err), "check that the "+
		"callback function is deployed at this host, the host's DNS name and certificate, and that a proxy in front of the "+
		"function keeps the Host header")
}

// Reach asks the server of a redirect URI for a page of the same kind as people visit. /healthz
// would answer under any host name, also behind a proxy that lets no page through.
func (d *Doctor) Reach(ctx context.Context, redirectURI *url.URL) error {
	base := redirectURI.Path[:max(0, strings.LastIndex(redirectURI.Path, "/callback/"))]
	page := (&url.URL{Scheme: redirectURI.Scheme, Host: redirectURI.Host, Path: base + "/connected"}).String()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return err
	}
	answer, err := d.web.Do(request)
	if err != nil {
		return err
	}
	_ = answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusBadRequest:
		return fmt.Errorf("%s answers HTTP 400: the request arrived with another host name than the public URL's", page)
	}
	return fmt.Errorf("%s answers HTTP %d", page, answer.StatusCode)
}
