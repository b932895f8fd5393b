// Package readapi gives access tokens to programs on the same machine, in two forms that
// exist already, so that a program written for AWS works unchanged:
//
//   - that of the AWS Secrets Manager Agent (now AWS Workload Credentials Provider) and of
//     the Lambda extension: GET /secretsmanager/get?secretId=NAME, with the SSRF token in
//     the header X-Aws-Parameters-Secrets-Token
//     (https://docs.aws.amazon.com/secretsmanager/latest/userguide/secrets-manager-agent.html).
//   - that of Secrets Manager: POST /secretsmanager with the operation GetSecretValue, as
//     every AWS SDK sends it. SDKs pass the SSRF token on as the session token of their
//     credentials. The signature is not checked: the session token is the secret.
//
// The answer is the document that the secret store shows to readers. A token with little
// life left is renewed first.
//
// What a reader can reach is the AWSCURRENT version of the secret of a connection, and
// nothing else: no other version, no app credentials, no operation that changes anything.
// The refresh token is in the document only sealed, and this package has no key.
package readapi

import (
	"bytes"
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

const (
	// Path is where the API is: the endpoint for SDKs, and the prefix of every route.
	Path = "/secretsmanager"
	// Prefix begins the name of a connection's secret.
	Prefix = "tokenturn/connection/"
	// header has the SSRF token, as the Agent and the Lambda extension take it;
	// sessionHeader, where SDKs put the session token of their credentials.
	header        = "X-Aws-Parameters-Secrets-Token"
	sessionHeader = "X-Amz-Security-Token"
)

const (
	// renewWithin is explained at RenewBefore.
	renewWithin = time.Minute
	// patience is how long a request waits, for a rotation in progress and for a renewal
	// together, while the present token is still alive. Readers give up after two or three
	// seconds.
	patience     = 1500 * time.Millisecond
	pollInterval = 50 * time.Millisecond
	maxBody      = 16 << 10
)

// Limit bounds a request without a live token. It also bounds a renewal, which goes on without the
// request that caused it. A server needs longer limits.
const Limit = time.Minute

// Ledger says how far the rotation of a connection is.
type Ledger interface {
	Load(ctx context.Context, c token.Connection) (rotation.Record, []rotation.TokenResponse, error)
}

// Secrets has what readers see.
type Secrets interface {
	Current(ctx context.Context, c token.Connection) (rotation.Version, error)
}

// Engine renews tokens.
type Engine interface {
	Do(ctx context.Context, request rotation.Request) (rotation.Report, error)
}

// Config is what New needs.
type Config struct {
	Ledger  Ledger
	Secrets Secrets
	Engine  Engine
	Token   token.Secret // the SSRF token
	Port    string       // on which the API is served
	// Explain says why a renewal brought no token, and what to do about it.
	Explain func(rotation.ConnectionReport) error
	Logger  *slog.Logger
	Now     func() time.Time
}

// Handler is the API.
type Handler struct {
	cfg      Config
	renewals singleflight.Group

	mu       sync.Mutex // guards that nothing is added to underWay once it is waited for
	underWay sync.WaitGroup
	stopping bool
}

// New checks the configuration.
func New(cfg Config) (*Handler, error) {
	if cfg.Ledger == nil || cfg.Secrets == nil || cfg.Engine == nil || cfg.Explain == nil || cfg.Token.IsZero() {
		return nil, errors.New("the read API needs a ledger, a secret store, an engine, explanations and a token")
	}
	return &Handler{cfg: cfg}, nil
}

// Wait waits for the renewals in progress, which may go on after the requests that caused them.
// It takes at most Limit, and no renewal begins after it was called.
func (h *Handler) Wait() {
	h.mu.Lock()
	h.stopping = true
	h.mu.Unlock()
	h.underWay.Wait()
}

// Wrap serves the paths of the API and leaves every other path to next.
func (h *Handler) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == Path || strings.HasPrefix(r.URL.Path, Path+"/") {
			h.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// failure is an error as Secrets Manager answers it.
type failure struct {
	status  int
	code    string // the name of the exception
	message string
}

func (f *failure) Error() string { return f.code + ": " + f.message }

func notFound(message string) error {
	return &failure{http.StatusBadRequest, "ResourceNotFoundException", message}
}

func disconnected(c token.Connection) error {
	return &failure{http.StatusBadRequest, "InvalidRequestException", c.String() + " is disconnected. " +
		"Connect it again with: tokenturn connection invite " + c.String()}
}

// ServeHTTP implements http.Handler. Like http.ServeMux it sets the request's Pattern.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	var form form
	switch strings.TrimSuffix(r.URL.Path, "/") {
	case Path + "/get":
		form = agentForm
	case Path:
		form = sdkForm
	default:
		send(w, "application/json", nil, &failure{http.StatusNotFound, "UnknownOperationException",
			"There is no such path. Use GET " + Path + "/get?secretId=..., or " + Path + " as the endpoint of an AWS SDK."})
		return
	}
	r.Pattern = form.method + " " + strings.TrimSuffix(r.URL.Path, "/")
	if r.Method != form.method {
		w.Header().Set("Allow", form.method)
	}
	if err := h.refuses(r, form); err != nil { // before anything is said about what exists
		send(w, form.contentType, nil, err)
		return
	}
	q, err := form.parse(w, r)
	if err != nil {
		send(w, form.contentType, nil, err)
		return
	}
	q.name = strings.TrimPrefix(q.name, arnPrefix)
	c, version, err := h.find(r.Context(), q)
	if err != nil {
		send(w, form.contentType, nil, h.public(r.Context(), c, err))
		return
	}
	send(w, form.contentType, answer{ARN: arnPrefix + q.name, Name: q.name,
		VersionID: version.ID, SecretString: version.Value.Reveal(), VersionStages: []string{current},
		CreatedDate: form.date(version.document.SavedAt)}, nil)
}

// public is an error as a reader may see it: what is not meant for readers is logged only.
func (h *Handler) public(ctx context.Context, c token.Connection, err error) error {
	if _, ok := errors.AsType[*failure](err); ok {
		return err
	}
	if h.cfg.Logger != nil && ctx.Err() == nil { // otherwise the reader has gone
		h.cfg.Logger.ErrorContext(ctx, "a token could not be read", "connection", c.String(), "error", err)
	}
	return &failure{http.StatusInternalServerError, "InternalServiceError",
		"tokenturn could not read the token. The log of `tokenturn serve` says why."}
}

// refuses says why a request gets no answer.
func (h *Handler) refuses(r *http.Request, form form) error {
	denied := func(message string) error {
		return &failure{http.StatusForbidden, "AccessDeniedException", message}
	}
	switch {
	case !h.isOurHost(r.Host): // DNS rebinding: a foreign name that leads to this machine
		return denied("The API is at http://localhost:" + h.cfg.Port + Path + ".")
	case !isLocal(r) || isForwarded(r):
		return denied("The API is only for programs on the same machine.")
	case r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "":
		return denied("The API is not for browsers.")
	case r.Method != form.method:
		return &failure{http.StatusMethodNotAllowed, "UnknownOperationException", "This path takes " + form.method +
			" requests only."}
	case subtle.ConstantTimeCompare([]byte(r.Header.Get(form.header)), []byte(h.cfg.Token.Reveal())) != 1:
		return &failure{form.unauthorized, form.badToken, "The header " + form.header +
			" does not have the token in the file that `tokenturn serve` names when it starts."}
	}
	return nil
}

func (h *Handler) isOurHost(host string) bool {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = strings.Trim(host, "[]"), "80"
	}
	address, err := netip.ParseAddr(name)
	return port == h.cfg.Port && (strings.EqualFold(name, "localhost") || err == nil && address.IsLoopback())
}

// isLocal reports whether a request comes from this machine.
func isLocal(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && from.Addr().Unmap().IsLoopback()
}

// isForwarded reports whether a proxy on this machine passes on the request of another one.
func isForwarded(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"} {
		if r.Header.Get(name) != "" {
			return true
		}
	}
	return false
}

// arnPrefix begins the ARN of a secret here. Readers may use the ARN in place of the name.
const arnPrefix = "arn:tokenturn:secretsmanager:local::secret:"

// current is the only version that readers get.
const current = "AWSCURRENT"

// answer is the output of GetSecretValue.
type answer struct {
	ARN           string
	Name          string
	VersionID     string `json:"VersionId"`
	SecretString  string
	VersionStages []string
	CreatedDate   any
}

// send writes an answer, or err, which is a *failure.
func send(w http.ResponseWriter, contentType string, a any, err error) {
	status := http.StatusOK
	if f, ok := errors.AsType[*failure](err); ok {
		status = f.status
		a = struct {
			Type    string `json:"__type"`
			Message string `json:"message"`
		}{f.code, f.message}
	}
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(a) // strings and numbers only
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
}

// form is one of the two forms of requests and answers.
type form struct {
	method, header, contentType string
	unauthorized                int    // status for a wrong token
	badToken                    string // exception for a wrong token
	parse                       func(w http.ResponseWriter, r *http.Request) (query, error)
	date                        func(time.Time) any
}

// query is what a request asks for.
type query struct{ name, versionID, versionStage string }

// agentForm is that of the Secrets Manager Agent, which writes a date as a string.
var agentForm = form{method: http.MethodGet, header: header, contentType: "application/json",
	unauthorized: http.StatusForbidden, badToken: "AccessDeniedException",
	parse: func(_ http.ResponseWriter, r *http.Request) (query, error) {
		given := r.URL.Query()
		for _, value := range given["refreshNow"] { // nothing is cached here: each answer is fresh
			if value != "true" && value != "false" {
				return query{}, &failure{http.StatusBadRequest, "InvalidParameterException", "refreshNow is true or false."}
			}
		}
		return query{given.Get("secretId"), given.Get("versionId"), given.Get("versionStage")}, nil
	},
	date: func(t time.Time) any { return strconv.FormatFloat(seconds(t), 'f', -1, 64) }}

// sdkForm is AWS's JSON protocol 1.1, in which every error has the status 400.
var sdkForm = form{method: http.MethodPost, header: sessionHeader, contentType: "application/x-amz-json-1.1",
	unauthorized: http.StatusBadRequest, badToken: "UnrecognizedClientException",
	parse: func(w http.ResponseWriter, r *http.Request) (query, error) {
		if r.Header.Get("X-Amz-Target") != "secretsmanager.GetSecretValue" {
			return query{}, &failure{http.StatusBadRequest, "UnknownOperationException", "The only operation here is " +
				"GetSecretValue."}
		}
		var given struct{ SecretID, VersionID, VersionStage string }
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err == nil {
			err = json.Unmarshal(body, &given)
		}
		if err != nil {
			return query{}, &failure{http.StatusBadRequest, "SerializationException", "The body is not the JSON of " +
				"GetSecretValue."}
		}
		return query{given.SecretID, given.VersionID, given.VersionStage}, nil
	},
	date: func(t time.Time) any { return seconds(t) }}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// version is what readers see, and its document.
type version struct {
	rotation.Version
	document token.Document
}

// find returns the version that a request asks for, renewed if it has little life left.
func (h *Handler) find(ctx context.Context, q query) (c token.Connection, v version, err error) {
	name, found := strings.CutPrefix(q.name, Prefix)
	if c, err = token.ParseConnection(name); !found || err != nil {
		return c, v, notFound("secretId is the name of a connection's secret, such as " + Prefix + "sandbox/acme. " +
			"Readers can read nothing else.")
	}
	if q.versionStage != "" && q.versionStage != current {
		return c, v, &failure{http.StatusBadRequest, "AccessDeniedException", "Readers can read the version " + current +
			" only."}
	}
	begun := time.Now()
	if v, err = h.settled(ctx, c, begun.Add(patience)); err != nil {
		return c, v, err
	}
	within := RenewBefore(v.document)
	if v.document.HasExpiry() && v.document.ExpiresAt.Sub(h.cfg.Now()) < within {
		if v, err = h.renewed(ctx, c, v, within, begun); err != nil {
			return c, v, err
		}
	}
	if q.versionID != "" && q.versionID != v.ID {
		return c, v, &failure{http.StatusBadRequest, "AccessDeniedException", "Readers can read the version " + current +
			" only, which has another versionId."}
	}
	return c, v, nil
}

// RenewBefore is the life that a token must have left to be handed out as it is: a minute or, if
// the token is short-lived, a quarter of its lifetime. At least a second: the engine counts in
// seconds.
func RenewBefore(d token.Document) time.Duration {
	return max(time.Second, min(renewWithin, d.ExpiresAt.Sub(d.CreatedAt)/4).Truncate(time.Second))
}

// settled reads what readers see. During a rotation it waits for the new token until end: then
// it is what Secrets Manager shows at that moment too, and the reader finds out by a 401.
func (h *Handler) settled(ctx context.Context, c token.Connection, end time.Time) (version, error) {
	for {
		rec, _, err := h.cfg.Ledger.Load(ctx, c)
		switch {
		case err != nil:
			return version{}, err
		case rec.Revision == "":
			return version{}, notFound("There is no connection " + c.String() + ". Connections: tokenturn connection list")
		case rec.Status == rotation.Disconnected: // the secret may still show the token that has ended
			return version{}, disconnected(c)
		}
		v, err := h.read(ctx, c)
		if err != nil || !inProgress(rec, v.document, h.cfg.Now()) || !time.Now().Before(end) {
			return v, err
		}
		if err := pause(ctx); err != nil {
			return v, err
		}
	}
}

// inProgress reports whether a rotation is in progress that may have ended the token of d, or
// that may replace a token that has expired. A new token of a service account does not end the
// old one.
func inProgress(rec rotation.Record, d token.Document, now time.Time) bool {
	return !(rec.ServiceAccount && isAlive(d, now)) && (rec.Attempt != nil && now.Before(rec.Attempt.Until) ||
		cmp.Or(cmp.Compare(d.Epoch, rec.Epoch), cmp.Compare(d.Generation, rec.Generation)) < 0)
}

// isAlive reports whether the token of d has not expired, as far as is known.
func isAlive(d token.Document, now time.Time) bool { return !d.HasExpiry() || now.Before(d.ExpiresAt) }

func (h *Handler) read(ctx context.Context, c token.Connection) (version, error) {
	found, err := h.cfg.Secrets.Current(ctx, c)
	switch {
	case errors.Is(err, rotation.ErrNoSecret), errors.Is(err, rotation.ErrNoVersion):
		return version{}, notFound("There is no token of " + c.String() + " yet. Find the cause with: " +
			"tokenturn connection show " + c.String())
	case errors.Is(err, rotation.ErrSecretDeleted):
		return version{}, disconnected(c)
	case err != nil:
		return version{}, err
	}
	d, err := token.ParseDocument(found.Value)
	if err != nil {
		return version{}, err
	}
	if d.Connection != c {
		return version{}, errors.New("the secret contains a token of " + d.Connection.String())
	}
	return version{found, d}, nil
}

// renewed replaces the token of v, which has less life left than within. While that token is
// alive, the request that has begun then does not wait for long, and a failure is no reason to
// withhold it. Without a live token it also waits for the rotation of another run.
func (h *Handler) renewed(ctx context.Context, c token.Connection, v version, within time.Duration,
	begun time.Time) (version, error) {
	hasLife := func(v version) bool { return isAlive(v.document, h.cfg.Now()) }
	for {
		end := begun.Add(Limit)
		if hasLife(v) {
			end = begun.Add(patience)
		}
		var result singleflight.Result
		select {
		case result = <-h.renew(ctx, c, within):
		case <-time.After(time.Until(end)):
			result.Err = errTakesLong
		case <-ctx.Done():
			return v, ctx.Err()
		}
		newer, err := h.read(ctx, c)
		switch until, busy := h.busyUntil(result); {
		case err == nil && hasLife(newer):
			return newer, nil
		case hasLife(v):
			return v, nil
		case !time.Now().Before(begun.Add(Limit)), !busy && !errors.Is(result.Err, errTakesLong):
			return v, h.noToken(c, result)
		case busy:
			if v, err = h.settled(ctx, c, earlier(until, begun.Add(Limit))); err != nil || hasLife(v) {
				return v, err
			}
			if err := pause(ctx); err != nil { // if the clocks of the runs differ, it settled at once
				return v, err
			}
		}
	}
}

// errTakesLong says that a request waited for a renewal as long as it may.
var errTakesLong = errors.New("tokenturn is still renewing it; try again in a minute")

// busyUntil reports whether another run handles the connection, and until when at most.
func (h *Handler) busyUntil(result singleflight.Result) (until time.Time, busy bool) {
	report, ok := result.Val.(rotation.Report)
	if !ok || result.Err != nil || len(report.Connections) != 1 || report.Connections[0].Outcome != rotation.Busy {
		return until, false
	}
	return time.Now().Add(report.Connections[0].RetryAt.Sub(h.cfg.Now())), true
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// pause waits before the stores are read again.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pollInterval):
		return nil
	}
}

// noToken says why there is no live token of c after a renewal with this result.
func (h *Handler) noToken(c token.Connection, result singleflight.Result) error {
	f := &failure{http.StatusServiceUnavailable, "InternalServiceError", "The access token of " + c.String() +
		" has expired, and there is no newer one."}
	why := result.Err
	if report, ok := result.Val.(rotation.Report); ok && why == nil && len(report.Connections) == 1 {
		switch report.Connections[0].Outcome { // asking again is no use
		case rotation.NotFound: // it was disconnected meanwhile
			return disconnected(c)
		case rotation.ConsentNeeded:
			f.status, f.code = http.StatusBadRequest, "ResourceNotFoundException"
		}
		why = h.cfg.Explain(report.Connections[0])
	}
	if why != nil {
		f.message += " " + why.Error()
	}
	return f
}

// renew asks the engine for a better token, once for all requests at the same time. It goes on
// when the request has ended: a refresh token is presented, and its answer has to be saved.
func (h *Handler) renew(ctx context.Context, c token.Connection, within time.Duration) <-chan singleflight.Result {
	result := make(chan singleflight.Result, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopping {
		result <- singleflight.Result{Err: errors.New("`tokenturn serve` is stopping; start it again")}
		return result
	}
	h.underWay.Go(func() {
		result <- <-h.renewals.DoChan(c.String(), func() (any, error) {
			return h.ensure(context.WithoutCancel(ctx), c, within)
		})
	})
	return result
}

// ensure asks the engine. A panic of it fails the request, and does not end the process.
func (h *Handler) ensure(ctx context.Context, c token.Connection, within time.Duration) (_ rotation.Report, err error) {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			if h.cfg.Logger != nil {
				h.cfg.Logger.ErrorContext(ctx, "panic", "connection", c.String(), "panic", fmt.Sprintf("%T", p), "stack",
					string(debug.Stack()))
			}
			err = errors.New("internal error; see the log of `tokenturn serve`")
		}
	}()
	return h.cfg.Engine.Do(ctx, rotation.Request{Op: "ensure", Connection: c.String(),
		MinTTLSeconds: int64(within / time.Second)})
}
