package procoretest

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// refusal is an error of RFC 6749 section 5.2.
type refusal struct{ code, description string }

func (e *refusal) Error() string { return e.code }

var (
	invalidClient = &refusal{"invalid_client", "Client authentication failed due to unknown client, " +
		"no client authentication included, or unsupported authentication method."}
	invalidGrant = &refusal{"invalid_grant", "The provided authorization grant is invalid, expired, revoked, " +
		"does not match the redirection URI used in the authorization request, or was issued to another client."}
	invalidScope       = &refusal{"invalid_scope", "The requested scope is invalid, unknown, or malformed."}
	unauthorizedClient = &refusal{"unauthorized_client", "The client is not authorized to perform this request using " +
		"this method."}
	unsupported = &refusal{"unsupported_grant_type", "The authorization grant type is not supported by the " +
		"authorization server."}
)

func missing(parameter string) *refusal {
	return &refusal{"invalid_request", "Missing required parameter: " + parameter + "."}
}

// token serves POST /oauth/token.
func (h *Handler) token(w http.ResponseWriter, r *http.Request) {
	params, err := parameters(r)
	answer := h.nextAnswer()
	var sound response
	switch {
	case err != nil:
		sound = response{status: http.StatusBadRequest, contentType: "text/html"}
	case answer.Unreceived:
		h.record(params, unreceived)
	default:
		sound = h.redeem(params)
	}
	answer.send(w, r, sound, h.now())
}

// redeem takes effect if the request is valid, and returns the true answer.
func (h *Handler) redeem(params params) response {
	h.mu.Lock()
	defer h.mu.Unlock()
	p, err := h.grant(params)
	if err != nil {
		h.recordLocked(params, err.code)
		return h.refuse(err)
	}
	h.recordLocked(params, "granted")
	return h.granted(p)
}

func (h *Handler) grant(params params) (*pair, *refusal) {
	if params.repeated != "" {
		return nil, &refusal{"invalid_request", "The request includes a parameter more than once."}
	}
	switch params.get("grant_type") {
	case "":
		return nil, missing("grant_type")
	case "authorization_code":
		return h.grantCode(params)
	case "refresh_token":
		return h.grantRefresh(params)
	case "client_credentials":
		return h.grantClient(params)
	}
	return nil, unsupported
}

// grantClient gives an app an access token of its own, if it has a service account.
func (h *Handler) grantClient(params params) (*pair, *refusal) {
	app, ok := h.client(params)
	switch {
	case !ok:
		return nil, invalidClient
	case app.ServiceAccount == nil:
		return nil, unauthorizedClient
	case params.get("scope") != "":
		return nil, invalidScope
	}
	h.families++
	return h.issue(app.ClientID, &User{Companies: app.ServiceAccount}, h.families, false), nil
}

// grantCode checks parameters, then the client, then the code. A refused
// request does not use up the code.
func (h *Handler) grantCode(params params) (*pair, *refusal) {
	c := h.codes[params.get("code")]
	verifier := params.get("code_verifier")
	switch {
	case params.get("code") == "":
		return nil, missing("code")
	case params.get("redirect_uri") == "":
		return nil, missing("redirect_uri")
	case c != nil && c.challenge != "" && verifier == "":
		return nil, missing("code_verifier")
	}
	app, ok := h.client(params)
	switch {
	case !ok:
		return nil, invalidClient
	case c == nil || c.used || c.revoked || c.client != app.ClientID || c.redirectURI != params.get("redirect_uri"),
		!h.now().Before(c.created.Add(codeLifetime)),
		!verified(c.challenge, verifier):
		return nil, invalidGrant
	}
	c.used = true
	return h.issueForConsent(c.client, c.user), nil
}

// verified checks PKCE (RFC 7636 section 4.6). A verifier without a challenge is wrong too.
func verified(challenge, verifier string) bool {
	if challenge == "" || verifier == "" {
		return challenge == verifier
	}
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:]) == challenge
}

// grantRefresh checks the token before the client: a dead token with a wrong
// secret is an invalid_grant, and so is a live one with no credentials.
func (h *Handler) grantRefresh(params params) (*pair, *refusal) {
	if params.get("refresh_token") == "" {
		return nil, missing("refresh_token")
	}
	p := h.byRefresh[params.get("refresh_token")]
	if p == nil || p.dead {
		if p != nil {
			h.reused(p)
		}
		return nil, invalidGrant
	}
	app, ok := h.client(params)
	switch {
	case params.get("client_id") == "":
		return nil, invalidGrant
	case !ok:
		return nil, invalidClient
	case app.ClientID != p.client:
		return nil, invalidGrant
	case params.get("scope") != "":
		return nil, invalidScope
	}
	return h.succeed(p), nil
}

// client authenticates. h.mu must be held.
func (h *Handler) client(params params) (App, bool) {
	app, ok := h.apps[params.get("client_id")]
	same := subtle.ConstantTimeCompare([]byte(app.ClientSecret.Reveal()), []byte(params.get("client_secret"))) == 1
	return app, ok && same
}

func (h *Handler) granted(p *pair) response {
	answer := map[string]any{"access_token": p.access, "token_type": "Bearer",
		"expires_in": int64(p.lifetime / time.Second), "created_at": p.created.Unix()}
	if p.refresh != "" {
		answer["refresh_token"] = p.refresh
	}
	if h.is(OldRelease) {
		answer["token_type"] = "bearer"
	}
	return jsonResponse(http.StatusOK, answer)
}

func (h *Handler) refuse(e *refusal) response {
	status := http.StatusBadRequest
	if e == invalidClient || e == unauthorizedClient || h.is(OldRelease) {
		status = http.StatusUnauthorized
	}
	answer := jsonResponse(status, map[string]any{"error": e.code, "error_description": e.description})
	answer.authenticate = authenticate(e.code, e.description)
	return answer
}

func authenticate(code, description string) string {
	return fmt.Sprintf(`Bearer realm="Doorkeeper", error=%q, error_description=%q`, code, description)
}

// response is an answer before a script alters it.
type response struct {
	status       int
	contentType  string
	authenticate string // WWW-Authenticate
	body         string
}

func jsonResponse(status int, value any) response {
	body, err := json.Marshal(value)
	if err != nil {
		panic(err) // only plain maps are passed
	}
	return response{status: status, contentType: "application/json; charset=utf-8", body: string(body)}
}

func (a response) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", a.contentType)
	if a.authenticate != "" {
		w.Header().Set("WWW-Authenticate", a.authenticate)
	}
	w.WriteHeader(a.status)
	_, _ = w.Write([]byte(a.body))
}

// params are the parameters of a POST.
type params struct {
	values   url.Values
	repeated string // a parameter that occurs more than once
}

func (p params) get(name string) string { return p.values.Get(name) }

// parameters reads a JSON, form or multipart body and HTTP Basic credentials.
// A body of another type has no parameters. An error means that the body is
// not what its type says.
func parameters(r *http.Request) (params, error) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	values := url.Values{}
	var err error
	switch kind {
	case "application/json":
		var object map[string]string
		var body []byte
		if body, err = io.ReadAll(r.Body); err == nil {
			err = json.Unmarshal(body, &object)
		}
		for name, value := range object {
			values.Set(name, value)
		}
	case "multipart/form-data":
		err = r.ParseMultipartForm(64 << 10)
		values = r.PostForm
	case "application/x-www-form-urlencoded":
		err = r.ParseForm()
		values = r.PostForm
	}
	if id, secret, ok := r.BasicAuth(); ok && err == nil {
		values.Add("client_id", unescape(id))
		values.Add("client_secret", unescape(secret))
	}
	p := params{values: values}
	for name, several := range values {
		if len(several) > 1 {
			p.repeated = name
		}
	}
	return p, err
}

// unescape decodes the form encoding that RFC 6749 section 2.3.1 requires in HTTP Basic.
func unescape(text string) string {
	if plain, err := url.QueryUnescape(text); err == nil {
		return plain
	}
	return text
}

// Presentation is one appearance of a code or refresh token at the token endpoint.
type Presentation struct {
	At          time.Time
	Grant       string // "authorization_code" or "refresh_token"
	Fingerprint token.Fingerprint
	ClientID    string
	// Outcome is "granted", the error code, or "unreceived" for a request that a
	// scripted answer, or a server that is down, kept from taking effect.
	Outcome string
}

const unreceived = "unreceived"

func (h *Handler) record(params params, outcome string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.recordLocked(params, outcome)
}

func (h *Handler) recordLocked(params params, outcome string) {
	kinds := map[string]string{"authorization_code": "code", "refresh_token": "refresh_token"}
	field, ok := kinds[params.get("grant_type")]
	if !ok || params.get(field) == "" {
		return
	}
	h.presentations = append(h.presentations, Presentation{At: h.now(), Grant: params.get("grant_type"),
		Fingerprint: token.NewSecret(params.get(field)).Fingerprint(), ClientID: params.get("client_id"), Outcome: outcome})
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

// registered reports whether the app may use the redirect URI: exactly one of its own.
func (a App) registered(redirectURI string) bool { return slices.Contains(a.RedirectURIs, redirectURI) }
