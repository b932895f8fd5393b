package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// versionLimit is the number of versions of a secret from which the service may refuse
// a new one: about 100, and none younger than 24 hours is deleted (Secrets Manager
// quotas).
const versionLimit = 100

// connection examines the ledger's row of one connection, the secret that readers
// see, and whether its token works.
func (d *Doctor) connection(ctx context.Context, r rotation.Record, apps map[string]application) []Finding {
	about := func(check string, level Level, detail, remedy string) Finding {
		return Finding{check, r.Connection.String(), level, detail, remedy}
	}
	switch {
	case r.Expired(d.Now()):
		return nil // a name that nobody uses
	case r.Status == rotation.Pending:
		return []Finding{about("connection", OK, "nobody has consented yet", "")}
	case r.Status == rotation.NeedsConsent && r.OnlyImported():
		return []Finding{about("connection", Consent, "Procore refuses the imported refresh token",
			fmt.Sprintf("import the right one with: tokenturn connection import %s; or create a link for a person with: "+
				"tokenturn connection invite %[1]s", r.Connection))}
	case r.Status == rotation.NeedsConsent:
		return []Finding{about("connection", Consent, "Procore no longer accepts its refresh token",
			"create a link for the person who connected it: tokenturn connection invite "+r.Connection.String())}
	case r.Quarantined: // the refresh that gave the unusable response has probably ended its token
		return []Finding{about("connection", Problem,
			"quarantined, because a response of the token endpoint cannot be used as it is",
			fmt.Sprintf("name the right refresh token with: tokenturn connection release %s; or discard the response with: "+
				"tokenturn connection discard %[1]s", r.Connection))}
	}
	findings := []Finding{d.standing(r)}
	doc, found := d.secret(ctx, r)
	findings = append(findings, found...)
	findings = append(findings, d.versions(ctx, r)...)
	findings = append(findings, d.lifetime(r)...)
	if app := apps[r.Connection.Environment]; app.err == nil && !doc.AccessToken.IsZero() {
		findings = append(findings, d.token(ctx, r, app.app, doc))
	}
	return findings
}

// standing reports failures that the ledger has recorded.
func (d *Doctor) standing(r rotation.Record) Finding {
	name := r.Connection.String()
	f := r.Failure()
	switch {
	case f != nil && f.NextAt.After(d.Now()) && f.Class != "config":
		return Finding{"connection", name, Later, f.Summary(),
			"no action is needed now: tokenturn tries again at " + rfc3339(f.NextAt)}
	case f != nil:
		return Finding{"connection", name, Problem, f.Summary(),
			"correct the cause; tokenturn then tries again automatically. See: tokenturn connection show " + name}
	case r.Attempt != nil && d.Now().After(r.Attempt.Until):
		return Finding{"connection", name, Later, "the response to a refresh was lost", fmt.Sprintf("no action is needed "+
			"now: tokenturn checks again automatically %s. See: tokenturn connection show %s",
			d.Settings.Refreshing(r, d.Now()).Check(rfc3339), name)}
	}
	detail := fmt.Sprintf("active, generation %d.%d", r.Epoch, r.Generation)
	if refreshing := d.Settings.Refreshing(r, d.Now()); refreshing != nil {
		detail += "; " + refreshing.Describe(rfc3339)
	}
	return Finding{"connection", name, OK, detail, ""}
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// secret reads the secret as readers do.
func (d *Doctor) secret(ctx context.Context, r rotation.Record) (token.Document, []Finding) {
	name := r.Connection.String()
	republish := "publish it again with: tokenturn connection rotate " + name
	problem := func(detail, remedy string) (token.Document, []Finding) {
		return token.Document{}, []Finding{{"secret", name, Problem, detail, remedy}}
	}
	version, err := d.SecretStore.Current(ctx, r.Connection)
	switch {
	case errors.Is(err, rotation.ErrSecretDeleted):
		return problem("it is scheduled for deletion, so no reader can read it",
			"restore it with: tokenturn connection undo "+name)
	case errors.Is(err, rotation.ErrNoSecret), errors.Is(err, rotation.ErrNoVersion):
		return problem("there is no secret, or it has no current version", republish)
	case err != nil:
		return problem("it cannot be read: "+err.Error(), "check that this command may read it")
	}
	doc, err := token.ParseDocument(version.Value)
	switch {
	case err != nil:
		return problem("its value is not in the format that tokenturn writes", "find out who wrote it; then "+republish)
	case doc.Connection != r.Connection || doc.Stack != d.Settings.Stack:
		return problem(fmt.Sprintf("it belongs to %s in stack %s", doc.Connection, doc.Stack),
			"find out who wrote it; then "+republish)
	case doc.Epoch != r.Epoch || doc.Generation != r.Generation:
		return doc, []Finding{{"secret", name, Later, fmt.Sprintf("it shows generation %d.%d, but %d.%d is current",
			doc.Epoch, doc.Generation, r.Epoch, r.Generation),
			"no action is needed: the next run publishes the current one. To publish it now: " +
				"tokenturn connection rotate " + name}}
	case !doc.HasExpiry():
		return doc, []Finding{{"secret", name, Warning,
			"the authorization server has never said how long its access tokens live",
			"no action is needed: tokenturn replaces the token regularly, and readers read it again on a 401"}}
	case !d.Now().Before(doc.ExpiresAt):
		return token.Document{}, []Finding{{"secret", name, Problem, "its access token expired at " +
			rfc3339(doc.ExpiresAt),
			"check that the schedule runs; replace the token with: tokenturn connection rotate " + name}}
	}
	return doc, []Finding{{"secret", name, OK, "its access token is valid until " +
		rfc3339(doc.ExpiresAt), ""}}
}

// versions counts how many more versions the secret can take today.
func (d *Doctor) versions(ctx context.Context, r rotation.Record) []Finding {
	if d.Settings.PutsPerDay == 0 {
		return nil // this secret store has no such limit
	}
	name := r.Connection.String()
	versions, err := d.SecretStore.Versions(ctx, r.Connection)
	if err != nil {
		return []Finding{{"versions", name, Warning, "its versions cannot be counted: " + err.Error(),
			"allow secretsmanager:ListSecretVersionIds to this role"}}
	}
	recent := 0
	for _, v := range versions {
		if d.Now().Sub(v.CreatedAt) < 24*time.Hour {
			recent++
		}
	}
	left := versionLimit - recent
	detail := fmt.Sprintf("%d in the last 24 hours, %d left", recent, max(left, 0))
	if left < versionLimit/10 {
		return []Finding{{"versions", name, Warning, detail, "rotate this connection less often by hand; " +
			"readers that ask for a long remaining life (--min-ttl, ensure) use up versions"}}
	}
	return []Finding{{"versions", name, OK, detail, ""}}
}

// lifetime reports tokens with a life too short to keep them fresh.
func (d *Doctor) lifetime(r rotation.Record) []Finding {
	if r.Current == nil || r.Current.ExpiresAt.IsZero() {
		return nil
	}
	name, life := r.Connection.String(), r.Current.ExpiresAt.Sub(r.Current.SavedAt).Round(time.Second)
	const perVersion = 24 * time.Hour / versionLimit
	switch {
	case d.Settings.PutsPerDay > 0 && life < perVersion+25*time.Second:
		return []Finding{{"lifetime", name, Warning, fmt.Sprintf("access tokens live %v, but a secret can take "+
			"only one version every %v around the clock", life, perVersion),
			"let readers ask for a fresh token when they need one: ensure, or token exec --min-ttl"}}
	case !d.FollowUps && life < d.Settings.Cadence+10*time.Minute:
		return []Finding{{"lifetime", name, Problem, fmt.Sprintf("access tokens live %v and sweeps run every %v, "+
			"so readers see expired tokens", life, d.Settings.Cadence),
			"sweep more often, or give this installation a queue (TOKENTURN_QUEUE_URL)"}}
	}
	return []Finding{{"lifetime", name, OK, fmt.Sprintf("access tokens live %v", life), ""}}
}

// token checks whether the published access token works.
func (d *Doctor) token(ctx context.Context, r rotation.Record, app rotation.Application, doc token.Document) Finding {
	name := r.Connection.String()
	probe := d.Issuer.Probe(ctx, app, doc.AccessToken, doc.CompanyID)
	level, remedy := Advice(probe, r, d.Settings.Refreshing(r, d.Now()))
	detail := probe.Detail
	if probe.Health == procore.Works {
		detail = "it works"
		if doc.CompanyID != "" {
			detail = "it works in company " + doc.CompanyID
		}
	}
	return Finding{"token", name, level, detail, remedy}
}

// Advice returns the level of a probe of a connection's token, and what to do. A refresh
// without a result has probably invalidated a token that is refused, and no command can
// replace that token before tokenturn checks again.
func Advice(p procore.Probe, r rotation.Record, refreshing *rotation.Refreshing) (Level, string) {
	c, serviceAccount := r.Connection, r.ServiceAccount
	rotate := "replace it with: tokenturn connection rotate " + c.String()
	if p.Health == procore.TokenRefused && refreshing != nil && refreshing.Invalidates && !refreshing.CheckAt.IsZero() {
		return Later, fmt.Sprintf("no action is needed now: the refresh that began at %s has probably invalidated it, and "+
			"tokenturn checks again automatically at %s", rfc3339(refreshing.Since), rfc3339(refreshing.CheckAt))
	}
	switch p.Health {
	case procore.Works:
		return OK, ""
	case procore.TokenRefused:
		if serviceAccount {
			return Problem, rotate
		}
		return Problem, rotate + "; if that is refused too, the person must consent again"
	case procore.OtherClient:
		if serviceAccount {
			return Problem, rotate
		}
		return Problem, fmt.Sprintf("store the app credentials that it was issued to (tokenturn app set %s), "+
			"or connect again with: tokenturn connection invite %s", c.Environment, c)
	case procore.NotInstalled:
		return Problem, "have an administrator of the company install the app there; the token stays valid meanwhile"
	case procore.NoAccess:
		if serviceAccount {
			return Problem, "have an administrator of the company install the app there and choose the projects of its " +
				"service account"
		}
		return Problem, "give the user access to the company in Procore, or connect again with the right user or --company"
	case procore.CompanyMissing:
		return Warning, fmt.Sprintf("name the company: tokenturn connection invite %s --company ID", c)
	case procore.RateLimited:
		if p.Wait > 0 {
			return Later, fmt.Sprintf("wait for %v, and find out which program makes so many calls", p.Wait.Round(time.Second))
		}
		return Later, "wait a few minutes, and find out which program makes so many calls"
	}
	return Later, "try again later; https://status.procore.com lists outages"
}
