package procore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Health says whether an access token works now, and if not, why.
type Health string

const (
	Works          Health = "works"             // accepted, in the company if one was asked for
	TokenRefused   Health = "token_refused"     // expired, revoked, or of another environment
	OtherClient    Health = "other_client"      // good, but issued to another client id than the app's
	NotInstalled   Health = "app_not_installed" // good, but the app is not installed in the company
	NoAccess       Health = "no_access"         // good, but its user has no access to the company
	CompanyMissing Health = "company_missing"   // good, but calls need a company and none is known
	RateLimited    Health = "rate_limited"      // not known before Wait is over
	Unavailable    Health = "unavailable"       // not known: the server is down or not reached
)

// Probe is the result of checking an access token.
type Probe struct {
	Health        Health        `json:"health"`
	Detail        string        `json:"detail,omitempty"` // for people; contains no text of the server
	ResourceOwner string        `json:"resource_owner,omitempty"`
	Wait          time.Duration `json:"-"` // of RateLimited: how long the server asks to wait; 0 if it did not say
}

// Probe asks the login host about the token, and the API whether the token may act
// in company or, if that is empty, at all. It spends nothing. It makes two requests
// at most, of at most 10 seconds each.
func (i *Issuer) Probe(ctx context.Context, app rotation.Application, access token.Secret, company string) Probe {
	info, err := i.get(ctx, app.LoginURL+"/oauth/token/info", access, "")
	if p, ended := unanswered("the login host", info, err); ended {
		return p
	}
	if info.status == http.StatusUnauthorized && !info.isPage() {
		return Probe{Health: TokenRefused, Detail: "the login host does not accept it: it has expired, was revoked, " +
			"or belongs to another environment"}
	}
	id, err := identityOf(info)
	if err != nil {
		return Probe{Health: Unavailable, Detail: "the login host: " + err.Error()}
	}
	if id.ClientID != app.ClientID {
		return Probe{Health: OtherClient, Detail: "it was issued to another client id than that of the app credentials",
			ResourceOwner: id.ResourceOwner}
	}
	p := i.probeAPI(ctx, app, access, company)
	p.ResourceOwner = id.ResourceOwner
	return p
}

// probeAPI asks /me, the one documented call that needs no company but accepts
// one; see Identify.
func (i *Issuer) probeAPI(ctx context.Context, app rotation.Application, access token.Secret, company string) Probe {
	address := app.APIURL + "/rest/v1.0/me"
	if company != "" {
		address += "?company_id=" + url.QueryEscape(company)
	}
	me, err := i.get(ctx, address, access, company)
	if p, ended := unanswered("the API", me, err); ended {
		return p
	}
	switch {
	case me.status == http.StatusOK && json.Valid(me.body):
		return Probe{Health: Works}
	case me.appNotInstalled():
		return Probe{Health: NotInstalled, Detail: "the token is good, but the app is not installed in company " + company}
	case me.status == http.StatusUnauthorized && !me.isPage():
		return Probe{Health: TokenRefused, Detail: "the login host accepts it and the API does not: " +
			"check that both belong to the same environment"}
	case bytes.Contains(me.body, []byte("Missing Procore-Company-Id header")):
		return Probe{Health: CompanyMissing, Detail: "the API requires a company id, and this connection has none"}
	case me.refuses() && me.status == http.StatusForbidden && company == "":
		return Probe{Health: NoAccess, Detail: "the token is good, but the API refuses its user (HTTP 403)"}
	case me.refuses():
		return Probe{Health: NoAccess, Detail: "the token is good, but has no access to company " + company}
	}
	return Probe{Health: Unavailable, Detail: "the API: " + me.unexpected().Error()}
}

// unanswered handles answers that say nothing about the token.
func unanswered(who string, got reply, err error) (Probe, bool) {
	switch {
	case err != nil:
		return Probe{Health: Unavailable, Detail: who + " was not reached: " + err.Error()}, true
	case got.status == http.StatusTooManyRequests:
		return Probe{Health: RateLimited, Detail: who + " asks to wait (HTTP 429)", Wait: got.wait}, true
	case got.status >= 500 || got.status == http.StatusRequestTimeout:
		return Probe{Health: Unavailable, Detail: who + ": " + got.unexpected().Error()}, true
	}
	return Probe{}, false
}

// ServerTime reads the login host's clock, in whole seconds.
func (i *Issuer) ServerTime(ctx context.Context, app rotation.Application) (time.Time, error) {
	got, err := i.ask(ctx, http.MethodHead, app.LoginURL+"/", "", func(http.Header) {})
	if err != nil {
		return time.Time{}, err
	}
	at, err := http.ParseTime(got.header.Get("Date"))
	if err != nil {
		return time.Time{}, errors.New("the answer has no date")
	}
	return at, nil
}
