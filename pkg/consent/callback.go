package consent

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

const (
	// exchangeLimit bounds the exchange where no deadline of the caller does: a
	// redeem, saving, the identity check.
	exchangeLimit = time.Minute
	// concludeLimit bounds recording the result.
	concludeLimit = 5 * time.Second
	// abandoned is the age from which a consumed state without a result will
	// never get one.
	abandoned = exchangeLimit + concludeLimit
	// patience is how long a repeat waits for the request that is exchanging the
	// code; it reads the state every pause. API Gateway gives up after 30 seconds.
	patience = 10 * time.Second
	pause    = 500 * time.Millisecond
)

// callback serves GET /callback/{environment}, the redirect URI. The table in the
// package comment gives its steps in order.
func (h *Handler) callback(w http.ResponseWriter, r *http.Request, environment string) {
	if _, err := token.ParseEnvironment(environment); err != nil {
		h.refuse(w, r, "malformed environment")
		return
	}
	answer, complaint := parseResponse(r, h.cookies)
	if complaint != "" {
		h.refuse(w, r, complaint)
		return
	}
	state, err := h.cfg.Store.State(r.Context(), invitations.Hash(answer.state))
	about := aboutConnection(state.Connection)
	switch {
	case errors.Is(err, invitations.ErrNotFound):
		h.refuse(w, r, "unknown state")
	case err != nil:
		h.unavailable(w, r, invitations.Hash(answer.state), fmt.Errorf("reading the state: %w", err))
	case !sameBrowser(state, answer.cookie):
		h.refuse(w, r, "another browser's state", about)
	case state.Environment != environment:
		h.refuse(w, r, "a state of "+state.Environment+" at the redirect URI of "+environment, about)
	case !state.ConsumedAt.IsZero():
		h.repeat(w, r, state, answer.cookie)
	case !h.cfg.Now().Before(state.ExpiresAt):
		h.refuse(w, r, "expired state", about)
	default:
		h.conclude(w, r, state, answer)
	}
}

func sameBrowser(state invitations.State, cookie token.Secret) bool {
	return subtle.ConstantTimeCompare([]byte(state.Cookie), []byte(invitations.Hash(cookie))) == 1
}

// conclude consumes a fresh state and records its result. Until Consume nothing is
// changed, so a reload can repeat any step that failed before it; after Consume
// this request alone holds the code.
func (h *Handler) conclude(w http.ResponseWriter, r *http.Request, state invitations.State, answer response) {
	exchange, err := h.prepare(r.Context(), state, answer)
	switch {
	case errors.Is(err, errOtherIssuer):
		h.refuse(w, r, err.Error(), aboutConnection(state.Connection))
		return
	case errors.Is(err, errWithdrawn):
		h.refuseLink(w, r, invitations.Invitation{Connection: state.Connection, RevokedAt: h.cfg.Now()}, err)
		return
	case errors.Is(err, rotation.ErrSuperseded), errors.Is(err, rotation.ErrNotRegistered):
		if again, err := h.cfg.Store.State(r.Context(), state.Hash); err == nil && !again.ConsumedAt.IsZero() {
			h.repeat(w, r, again, answer.cookie) // the same browser was faster, with the same state
			return
		}
		result := h.supersededPage(r.Context(), state)
		h.reportResult(r.Context(), state, result, err)
		h.showResultAt(w, result, state, answer.cookie)
		return
	case err != nil:
		h.unavailable(w, r, state.Hash, err, aboutConnection(state.Connection))
		return
	}
	consumed, err := h.cfg.Store.Consume(r.Context(), state.Hash, invitations.Hash(answer.cookie), state.Environment,
		invitations.NewSecret().Reveal(), h.cfg.Now().UTC())
	switch {
	case errors.Is(err, invitations.ErrRefused):
		h.alreadyConsumed(w, r, state, answer.cookie)
		return
	case err != nil:
		h.unavailable(w, r, state.Hash, fmt.Errorf("consuming the state: %w", err), aboutConnection(state.Connection))
		return
	}
	result, err := h.finish(r.Context(), exchange, consumed, answer)
	h.reportResult(r.Context(), consumed, result, err)
	h.record(r.Context(), consumed, result)
	h.showResultAt(w, result, consumed, answer.cookie)
}

var errOtherIssuer = errors.New("another issuer's answer")

// prepare takes the steps that can fail without leaving a change. It returns no exchange if the answer is a refusal.
func (h *Handler) prepare(ctx context.Context, state invitations.State, answer response) (*rotation.Exchange, error) {
	if answer.issuer != "" {
		app, err := h.application(ctx, state.Environment)
		if err != nil {
			return nil, err
		}
		if strings.TrimSuffix(answer.issuer, "/") != strings.TrimSuffix(app.LoginURL, "/") {
			return nil, fmt.Errorf("%w: of %s, where %s of %s was asked", errOtherIssuer, hostOf(answer.issuer),
				hostOf(app.LoginURL), state.Environment)
		}
	}
	invited, err := h.cfg.Store.Invitation(ctx, state.Invitation)
	switch {
	case errors.Is(err, invitations.ErrNotFound), err == nil && !invited.RevokedAt.IsZero():
		return nil, errWithdrawn
	case err != nil:
		return nil, fmt.Errorf("reading the invitation: %w", err)
	case answer.problem != "":
		return nil, nil
	}
	exchange, err := h.cfg.Consents.Prepare(ctx, state.Connection, state.Epoch)
	if err != nil {
		return nil, fmt.Errorf("preparing the exchange: %w", err)
	}
	return exchange, nil
}

// hostOf returns the host of an issuer's address. The log needs no more of it.
func hostOf(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" {
		return "an issuer that is not a URL"
	}
	return u.Host
}

// finish exchanges the code, if there is one, and returns the page to show.
// The error explains every page but connected.
func (h *Handler) finish(ctx context.Context, exchange *rotation.Exchange, state invitations.State,
	answer response) (page, error) {
	switch answer.problem {
	case "":
	case "access_denied":
		return denied, errors.New("the person did not allow access")
	default:
		return failed, fmt.Errorf("the authorization server answered with the error %s", knownProblem(answer.problem))
	}
	ctx, cancel := finishing(ctx, exchangeLimit)
	defer cancel()
	result, err := exchange.Redeem(ctx, rotation.Consent{Code: answer.code, RedirectURI: state.RedirectURI,
		Verifier: verifier(answer.cookie, answer.state), Expect: state.Expect})
	switch result {
	case rotation.Connected:
		return connected, nil
	case rotation.Superseded:
		return h.supersededPage(ctx, state), err
	}
	return pageOf(result), fmt.Errorf("exchanging the code: %s: %w", result, err)
}

// pageOf returns the page for an exchange that did not connect.
func pageOf(result rotation.ConsentResult) page {
	switch result {
	case rotation.Verifying:
		return verifying
	case rotation.NotInstalled:
		return notInstalled
	case rotation.WrongIdentity:
		return wrongAccount
	case rotation.Unavailable:
		return unavailable
	default: // CodeRefused, Misconfigured, Lost
		return failed
	}
}

// unrecorded returns the page for a consent without a recorded result.
func (h *Handler) unrecorded(ctx context.Context, state invitations.State) page {
	standing, err := h.cfg.Consents.Standing(ctx, state.Connection)
	if err == nil && standing.Epoch > state.Epoch && standing.Status == rotation.Active {
		return alreadyConnected
	}
	return failed
}

// supersededPage returns the page for a consent that came after another change
// of its connection.
func (h *Handler) supersededPage(ctx context.Context, state invitations.State) page {
	if standing, err := h.cfg.Consents.Standing(ctx, state.Connection); err == nil && standing.Status == rotation.Active {
		return alreadyConnected
	}
	return superseded
}

// knownProblem keeps text that a stranger chose out of the log.
func knownProblem(problem string) string {
	if slices.Contains([]string{"invalid_request", "unauthorized_client", "unsupported_response_type", "invalid_scope",
		"server_error", "temporarily_unavailable"}, problem) { // RFC 6749 section 4.1.2.1
		return problem
	}
	return "(none of RFC 6749)"
}

// record stores the result for repeats; only success uses up the invitation. A
// pair with an owner that is not known yet (verifying) leaves the invitation as it
// is: if the account is the wrong one, the right person needs the link again, and
// if it is the right one, the connection's new epoch ends the link. If the result
// cannot be stored, the person still sees this request's own redirect.
func (h *Handler) record(ctx context.Context, state invitations.State, result page) {
	ctx, cancel := finishing(ctx, concludeLimit)
	defer cancel()
	if err := h.cfg.Store.Conclude(ctx, state, string(result), result == connected, h.cfg.Now().UTC()); err != nil {
		h.cfg.Logger.LogAttrs(ctx, slog.LevelError, "the result of a consent was not recorded; "+
			"see the connection's history for it",
			aboutConnection(state.Connection), slog.String("reference", reference(state.Hash)),
			slog.String("error", err.Error()))
	}
}

// reportResult passes the end of a consent to the observer and the log.
func (h *Handler) reportResult(ctx context.Context, state invitations.State, result page, err error) {
	h.cfg.Observer.Ended(state.Connection, string(result))
	level, attrs := slog.LevelInfo, []slog.Attr{aboutConnection(state.Connection), slog.String("result", string(result)),
		slog.String("reference", reference(state.Hash))}
	if err != nil {
		level, attrs = slog.LevelWarn, append(attrs, slog.String("error", err.Error()))
	}
	h.cfg.Logger.LogAttrs(ctx, level, "consent ended", attrs...)
}

// alreadyConsumed answers a request that was not the first to consume the state.
func (h *Handler) alreadyConsumed(w http.ResponseWriter, r *http.Request, state invitations.State,
	cookie token.Secret) {
	again, err := h.cfg.Store.State(r.Context(), state.Hash)
	switch {
	case err != nil && !errors.Is(err, invitations.ErrNotFound):
		h.unavailable(w, r, state.Hash, fmt.Errorf("reading the state again: %w", err), aboutConnection(state.Connection))
	case again.ConsumedAt.IsZero(): // it expired meanwhile
		h.refuse(w, r, "expired state", aboutConnection(state.Connection))
	default:
		h.repeat(w, r, again, cookie)
	}
}

// repeat answers a reload, a double click or a retry with the result of the
// request that consumed the state. It never makes a second exchange.
func (h *Handler) repeat(w http.ResponseWriter, r *http.Request, state invitations.State, cookie token.Secret) {
	h.cfg.Observer.Reused(state.Connection)
	for waited := time.Duration(0); h.underWay(state) && waited < patience; waited += pause {
		select {
		case <-r.Context().Done():
			return
		case <-time.After(pause):
		}
		again, err := h.cfg.Store.State(r.Context(), state.Hash)
		if err != nil {
			h.unavailable(w, r, state.Hash, fmt.Errorf("waiting for the result: %w", err), aboutConnection(state.Connection))
			return
		}
		state = again
	}
	switch {
	case h.underWay(state):
		h.show(w, http.StatusAccepted, stillWorking, view{})
	case state.Result == "":
		h.showResultAt(w, h.unrecorded(r.Context(), state), state, cookie)
	default:
		h.showResultAt(w, page(state.Result), state, cookie)
	}
}

func (h *Handler) underWay(state invitations.State) bool {
	return state.Result == "" && h.cfg.Now().Sub(state.ConsumedAt) < abandoned
}

// finishing returns a context for work that must not stop because the person
// closed the tab, but that still ends before the process is stopped.
func finishing(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	end, bounded := ctx.Deadline()
	ctx = context.WithoutCancel(ctx)
	if own := time.Now().Add(limit); !bounded || own.Before(end) {
		end = own
	}
	return context.WithDeadline(ctx, end)
}
