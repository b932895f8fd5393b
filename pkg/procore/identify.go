package procore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// CheckError says that the check of app credentials gave no result.
type CheckError struct {
	Environment string
	Answer      rotation.Answer
}

func (e *CheckError) Error() string {
	return fmt.Sprintf("checking the app credentials of %s: the check gave no result: %s", e.Environment, e.Answer.Detail)
}

// Identify implements rotation.Issuer. The authorization server's token info gives
// the app and the user, and only it decides whether the token is refused; the API's
// /me gives the login, which stays empty if /me is forbidden and for a service account.
//
// /me with a company id shows whether the token may act in that company: of the
// calls that Procore documents it is the one that needs membership of the company
// and, like every call with Procore-Company-Id, the app's installation there, while
// /companies and plain /me answer without an installation. Only an answer that the
// API itself wrote refuses a company (see reply.refuses), and one that names the
// missing installation is ErrAppNotInstalled. A 401 of the API refuses nothing,
// because token info has just accepted the token: it is an error, as are 429, 5xx,
// redirects, pages and every other answer. After an error nothing is known.
//
// Every request ends within 10 seconds. This is the first use of a token: do
// not call it before its pair is saved.
func (i *Issuer) Identify(ctx context.Context, app rotation.Application, access token.Secret,
	company string) (rotation.Identity, error) {
	id, err := i.tokenInfo(ctx, app, access)
	if err != nil {
		return rotation.Identity{}, fmt.Errorf("asking %s which app and user the token belongs to: %w", app.Environment, err)
	}
	if id.Login, err = i.login(ctx, app, access); err != nil {
		return id, fmt.Errorf("asking %s for the user's login: %w", app.Environment, err)
	}
	if company == "" {
		return id, nil
	}
	allowed, err := i.mayActIn(ctx, app, access, company)
	if err != nil {
		return id, fmt.Errorf("asking %s about company %.40q: %w", app.Environment, company, err)
	}
	if allowed {
		id.Company = company
	}
	return id, nil
}

// tokenInfo reads what Doorkeeper says about a token. Its other fields have
// different names in different releases, and nothing here needs them.
func (i *Issuer) tokenInfo(ctx context.Context, app rotation.Application, access token.Secret) (rotation.Identity,
	error) {
	got, err := i.get(ctx, app.LoginURL+"/oauth/token/info", access, "")
	switch {
	case err != nil:
		return rotation.Identity{}, err
	case got.status == http.StatusUnauthorized && !got.isPage():
		return rotation.Identity{}, rotation.ErrTokenRefused
	}
	return identityOf(got)
}

// identityOf reads the answer of token info.
func identityOf(got reply) (rotation.Identity, error) {
	if got.status != http.StatusOK {
		return rotation.Identity{}, got.unexpected()
	}
	var info struct {
		ResourceOwner identifier `json:"resource_owner_id"`
		Application   struct {
			UID string `json:"uid"`
		} `json:"application"`
	}
	if json.Unmarshal(got.body, &info) != nil || info.Application.UID == "" {
		return rotation.Identity{}, errors.New("token info has no application.uid; " +
			"tokenturn works only with servers that answer as Procore's does")
	}
	return rotation.Identity{ClientID: info.Application.UID, ResourceOwner: string(info.ResourceOwner)}, nil
}

func (i *Issuer) login(ctx context.Context, app rotation.Application, access token.Secret) (string, error) {
	got, err := i.get(ctx, app.APIURL+"/rest/v1.0/me", access, "")
	switch {
	case err != nil:
		return "", err
	case got.refuses() && got.status != http.StatusNotFound:
		// 400 for a service account, which has an identity only in a company.
		return "", nil
	case got.status != http.StatusOK:
		return "", got.unexpected()
	}
	var me struct {
		Login string `json:"login"`
	}
	if json.Unmarshal(got.body, &me) != nil {
		return "", errors.New("the answer of /rest/v1.0/me is not JSON")
	}
	return me.Login, nil
}

func (i *Issuer) mayActIn(ctx context.Context, app rotation.Application, access token.Secret, company string) (bool,
	error) {
	got, err := i.get(ctx, app.APIURL+"/rest/v1.0/me?company_id="+url.QueryEscape(company), access, company)
	if err != nil {
		return false, err
	}
	switch {
	case got.status == http.StatusOK && !json.Valid(got.body):
		return false, errors.New("the answer of /rest/v1.0/me is not JSON")
	case got.status == http.StatusOK:
		return true, nil
	case got.appNotInstalled():
		return false, rotation.ErrAppNotInstalled
	case got.refuses():
		return false, nil
	}
	return false, got.unexpected()
}

// identifier is an id that servers send as a number or as a string. Procore's ids
// need 64 bits, so they are not read as floating point. null gives the empty id.
type identifier string

func (i *identifier) UnmarshalJSON(value []byte) error {
	*i = identifier(strings.Trim(string(value), `"`))
	if bytes.Equal(value, []byte("null")) {
		*i = ""
	}
	return nil
}

// Revoke implements rotation.Issuer (RFC 7009). The server also answers 200 for
// unknown tokens. If it does not accept the app credentials, the error wraps
// rotation.ErrCredentialsRefused.
func (i *Issuer) Revoke(ctx context.Context, app rotation.Application, t token.Secret) error {
	form := url.Values{"token": {t.Reveal()}, "client_id": {app.ClientID}, "client_secret": {app.ClientSecret.Reveal()}}
	got, err := i.postForm(ctx, app.LoginURL+"/oauth/revoke", form)
	switch {
	case err != nil:
	case got.status == http.StatusOK:
		return nil
	case slices.Contains([]rotation.Class{rotation.ClientFault, rotation.GrantFault},
		meaning[errorCode(string(got.body))]):
		// Doorkeeper has one answer for both.
		err = fmt.Errorf("%w of the app credentials of %s, or the token was issued to another client id; run "+
			"`tokenturn app set %[2]s` with the credentials that it was issued to", rotation.ErrCredentialsRefused,
			app.Environment)
	default:
		err = got.unexpected()
	}
	return fmt.Errorf("revoking a token at %s: %w", app.Environment, err)
}

// CheckCredentials asks the server whether it accepts the app credentials, by
// presenting a random code. nil: it does. rotation.ErrCredentialsRefused: it does not.
// CheckError: the check gave no result.
func (i *Issuer) CheckCredentials(ctx context.Context, app rotation.Application) error {
	answer := i.Redeem(ctx, app, rotation.Grant{Code: token.NewSecret(rand.Text()), RedirectURI: app.RedirectURI})
	switch answer.Class {
	// GrantFault: "the authenticated client" may not use codes (RFC 6749 section
	// 5.2), such as an app for service accounts.
	case rotation.Refused, rotation.GrantFault:
		return nil
	case rotation.ClientFault:
		return fmt.Errorf("checking the app credentials of %s: %w", app.Environment, rotation.ErrCredentialsRefused)
	}
	return &CheckError{app.Environment, answer}
}

// reply is an answer to a request that spends nothing.
type reply struct {
	status int
	header http.Header
	body   []byte        // decoded
	wait   time.Duration // see serverWait
}

// unexpected is the error for a reply that does not answer the question.
func (r reply) unexpected() error {
	err := fmt.Errorf("unexpected answer HTTP %d", r.status)
	if code := errorCode(string(r.body)); code != "" {
		err = fmt.Errorf("%w %s", err, code)
	}
	if r.wait > 0 {
		return &rotation.WaitError{Wait: r.wait, Err: err}
	}
	return err
}

// isPage reports whether the body is HTML, such as a page of a gateway or firewall.
func (r reply) isPage() bool { return bytes.HasPrefix(bytes.TrimSpace(r.body), []byte("<")) }

// refuses reports whether the API itself refuses: 403 or 404 with JSON or an empty
// body, or 400, which may also be plain text if the company is wrong. Other text
// comes from something in front of the API, such as a firewall.
func (r reply) refuses() bool {
	own := len(bytes.TrimSpace(r.body)) == 0 || json.Valid(r.body)
	switch r.status {
	case http.StatusForbidden, http.StatusNotFound:
		return own
	case http.StatusBadRequest:
		return own || !r.isPage() && bytes.Contains(bytes.ToLower(r.body), []byte("company"))
	}
	return false
}

// notInstalled matches Procore's text for an app that is missing from a company,
// "App is not connected to this company.", and likely variants of it.
var notInstalled = regexp.MustCompile(
	`(?i)\bapp(lication)?[^a-z].{0,60}?(not|n['’]t|never|no longer)[^a-z].{0,20}?(connected|installed)` +
		`|(not|n['’]t|never|no longer)[^a-z].{0,20}?(connected|installed)[^a-z].{0,20}?app`)

// appNotInstalled reports whether the API refuses because an administrator has
// not installed the app in the company.
func (r reply) appNotInstalled() bool {
	refusal := []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound}
	return slices.Contains(refusal, r.status) && notInstalled.Match(r.body)
}

func (i *Issuer) get(ctx context.Context, address string, access token.Secret, company string) (reply, error) {
	return i.ask(ctx, http.MethodGet, address, "", func(header http.Header) {
		header.Set("Authorization", "Bearer "+access.Reveal())
		if company != "" {
			header.Set("Procore-Company-Id", company)
		}
	})
}

func (i *Issuer) postForm(ctx context.Context, address string, form url.Values) (reply, error) {
	return i.ask(ctx, http.MethodPost, address, form.Encode(), func(header http.Header) {
		header.Set("Content-Type", "application/x-www-form-urlencoded")
	})
}

func (i *Issuer) ask(ctx context.Context, method, address, body string, setHeaders func(http.Header)) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := i.request(ctx, method, address, body)
	if err != nil {
		return reply{}, err
	}
	setHeaders(req.Header)
	resp, err := i.asking.RoundTrip(req)
	if err != nil {
		return reply{}, harmless(ctx, err)
	}
	got, err := read(resp)
	if err != nil {
		return reply{}, fmt.Errorf("reading the answer: %w", harmless(ctx, err))
	}
	return reply{resp.StatusCode, resp.Header, []byte(decode(string(got), maxLayers).text),
		serverWait(resp.StatusCode, resp.Header, i.now())}, nil
}

// harmless returns a connection's error without anything that may quote the server.
func harmless(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.New(unreached(err))
}
