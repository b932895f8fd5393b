package consent

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/webpage"
)

// invitation serves GET /connect/{invitation}. It only reads, so that mail
// scanners and link previews use nothing up.
func (h *Handler) invitation(w http.ResponseWriter, r *http.Request, argument string) {
	invited, standing, err := h.usable(r.Context(), argument)
	if err != nil {
		h.refuseLink(w, r, invited, err)
		return
	}
	app, err := h.application(r.Context(), invited.Connection.Environment)
	if err != nil {
		h.refuseLink(w, r, invited, err)
		return
	}
	signIn, err := invitations.Origin(app.LoginURL)
	if err != nil {
		h.refuseLink(w, r, invited, fmt.Errorf("reading the login URL of %s: %w", app.Environment, err))
		return
	}
	// Chrome and Safari apply form-action to every redirect that follows the form,
	// and the login host redirects users of companies with their own single sign-on
	// to hosts that only it knows. So the policy must allow any https host.
	formAction := "'self' https:"
	scheme, host, _ := strings.Cut(signIn, "://")
	if scheme == "http" { // a server on this machine
		formAction += " " + signIn
	}
	shown := wanted(invited.Expect, standing.Pin)
	shown.Connection, shown.SignIn, shown.Renewal = invited.Connection.String(), host, renewalOf(standing)
	h.addFace(r.Context(), &shown, invited.Connection.Environment)
	webpage.Protect(w.Header(), append(shown.images(), "form-action "+formAction)...)
	h.show(w, http.StatusOK, invite, shown)
}

// wanted says who must sign in and for which company, as far as that is fixed. A pin's
// login is only the last one seen: the page shows it, but the user's number decides.
func wanted(expect rotation.Identity, pin *rotation.Pin) view {
	shown := view{Login: expect.Login, Company: expect.Company, CompanyName: expect.CompanyName}
	if pin == nil {
		return shown
	}
	if shown.Company == "" || shown.Company == pin.Company {
		shown.Company, shown.CompanyName = pin.Company, cmp.Or(shown.CompanyName, pin.CompanyName)
	}
	if !expect.Repin {
		shown.Login = cmp.Or(shown.Login, pin.Login)
	}
	return shown
}

// start serves POST /connect/{invitation}.
func (h *Handler) start(w http.ResponseWriter, r *http.Request, argument string) {
	if err := h.origins.Check(r); err != nil {
		h.refuse(w, r, "a form of another site, or an outdated browser")
		return
	}
	invited, _, err := h.usable(r.Context(), argument)
	if err != nil {
		h.refuseLink(w, r, invited, err)
		return
	}
	begun, err := h.begin(r.Context(), invited)
	if err != nil {
		h.refuseLink(w, r, invited, err)
		return
	}
	h.cfg.Logger.LogAttrs(r.Context(), slog.LevelInfo, "consent started", aboutConnection(invited.Connection))
	h.cookies.write(w, begun.state, begun.cookie)
	seeOther(w, begun.address)
}

// Errors of usable besides the Store's.
var (
	errConnectedMeanwhile = errors.New("the connection was connected after the invitation was made")
	errChangedMeanwhile   = errors.New("the connection was changed after the invitation was made")
	errWithdrawn          = errors.New("the invitation was revoked after the start")
)

// errElsewhere: Procore would send the browser to another address than this handler's.
var errElsewhere = errors.New("register that address in the Developer Portal and set it as redirect_uri in the app " +
	"credentials, or serve the other one; links that were sent have to be sent again")

// usable reads the invitation of a link and the state of its connection. A malformed link reads nothing.
func (h *Handler) usable(ctx context.Context, argument string) (invitations.Invitation, rotation.Standing, error) {
	secret, ok := invitations.ParseSecret(argument)
	if !ok {
		return invitations.Invitation{}, rotation.Standing{}, invitations.ErrNotFound
	}
	invited, err := h.cfg.Store.Invitation(ctx, invitations.Hash(secret))
	if err != nil {
		return invitations.Invitation{}, rotation.Standing{}, fmt.Errorf("reading the invitation: %w", err)
	}
	if !invited.Usable(h.cfg.Now()) {
		return invited, rotation.Standing{}, invitations.ErrSpent
	}
	standing, err := h.cfg.Consents.Standing(ctx, invited.Connection)
	switch {
	case err != nil:
		err = fmt.Errorf("reading the connection: %w", err)
	case standing.Epoch != invited.Epoch && standing.Status == rotation.Active:
		err = errConnectedMeanwhile
	case standing.Epoch != invited.Epoch:
		err = errChangedMeanwhile
	}
	return invited, standing, err
}

// refuseLink shows the page that explains why a link does not work. invited is empty if no invitation was found.
func (h *Handler) refuseLink(w http.ResponseWriter, r *http.Request, invited invitations.Invitation, err error) {
	switch {
	case errors.Is(err, invitations.ErrNotFound):
		h.show(w, http.StatusNotFound, linkUnusable, view{})
	case errors.Is(err, invitations.ErrSpent) && !invited.UsedAt.IsZero():
		h.show(w, http.StatusGone, linkUsed, view{})
	case errors.Is(err, invitations.ErrSpent) && invited.RevokedAt.IsZero() && !h.cfg.Now().Before(invited.ExpiresAt):
		h.show(w, http.StatusGone, linkExpired, view{})
	case errors.Is(err, errConnectedMeanwhile):
		h.show(w, http.StatusGone, alreadyConnected, view{})
	case errors.Is(err, invitations.ErrSpent), errors.Is(err, errChangedMeanwhile), errors.Is(err, errWithdrawn),
		errors.Is(err, rotation.ErrNotRegistered):
		h.cfg.Logger.LogAttrs(r.Context(), slog.LevelInfo, "invitation refused",
			aboutConnection(invited.Connection), slog.String("reason", err.Error()))
		h.show(w, http.StatusGone, linkUnusable, view{})
	case errors.Is(err, errElsewhere): // waiting does not help the visitor
		mark := reference(rand.Text())
		h.cfg.Logger.LogAttrs(r.Context(), slog.LevelError, "consent is out of service", aboutConnection(invited.Connection),
			slog.String("reference", mark), slog.String("error", err.Error()))
		h.show(w, http.StatusServiceUnavailable, linkUnusable, view{Reference: mark})
	case invited.Connection.IsZero():
		h.unavailable(w, r, rand.Text(), err)
	default:
		h.unavailable(w, r, rand.Text(), err, aboutConnection(invited.Connection))
	}
}

// attempt is one start, with the secrets that only the browser keeps.
type attempt struct {
	state, cookie token.Secret
	address       string
}

// begin stores a new state for the invitation.
func (h *Handler) begin(ctx context.Context, invited invitations.Invitation) (attempt, error) {
	app, err := h.application(ctx, invited.Connection.Environment)
	if err != nil {
		return attempt{}, err
	}
	state, cookie, now := invitations.NewSecret(), invitations.NewSecret(), h.cfg.Now().UTC()
	err = h.cfg.Store.Start(ctx, invitations.State{Hash: invitations.Hash(state), Cookie: invitations.Hash(cookie),
		Environment: invited.Connection.Environment,
		Connection:  invited.Connection, Invitation: invited.Hash, RedirectURI: app.RedirectURI, Expect: invited.Expect,
		Epoch: invited.Epoch, ReturnURL: invited.ReturnURL, CreatedAt: now, ExpiresAt: now.Add(stateLifetime)})
	if err != nil {
		return attempt{}, fmt.Errorf("storing the state: %w", err)
	}
	address := h.cfg.AuthorizeURL(app, app.RedirectURI, state.Reveal(), challenge(verifier(cookie, state)))
	return attempt{state, cookie, address}, nil
}

// application returns the app credentials of an environment if their redirect URI is this handler's.
func (h *Handler) application(ctx context.Context, environment string) (rotation.Application, error) {
	app, err := h.cfg.Applications.Application(ctx, environment)
	if err != nil {
		return rotation.Application{}, fmt.Errorf("reading the app credentials of %s: %w", environment, err)
	}
	if here := h.public.String() + "/callback/" + environment; app.RedirectURI != here {
		return rotation.Application{}, fmt.Errorf("the app credentials of %s have redirect_uri %q, but this handler "+
			"is %s: %w", environment, app.RedirectURI, here, errElsewhere)
	}
	return app, nil
}

func aboutConnection(c token.Connection) slog.Attr {
	return slog.String("connection", c.String())
}
