package consent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/webpage"
)

// goodResults are the pages of /connected: each says that something was saved.
var goodResults = []page{connected, verifying, notInstalled, alreadyConnected}

// badResults are the pages of /not-connected. They say nothing that is not true of a browser
// without a consent.
var badResults = []page{failed, denied, wrongAccount, superseded, unavailable}

// outcomes are the results as the address to return to names them. Every other one is
// "failed".
var outcomes = map[page]string{connected: "connected", alreadyConnected: "connected", verifying: "pending",
	notInstalled: "pending", denied: "denied"}

// readingTime is how long a person sees the page of a success before it leads back.
const readingTime = 8 * time.Second

// back returns where the person goes from a result page; nil: nowhere. The list of origins
// may have changed since the invitation was made.
func (h *Handler) back(ctx context.Context, state invitations.State, result page) *back {
	if state.ReturnURL == "" {
		return nil
	}
	u, err := invitations.ParseReturnURL(state.ReturnURL, h.cfg.ReturnOrigins)
	if err != nil {
		h.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "a result page leads nowhere", aboutConnection(state.Connection),
			slog.String("error", err.Error()))
		return nil
	}
	outcome := cmp.Or(outcomes[result], "failed")
	return &back{invitations.ReturnAddress(u, state.Connection, outcome, reference(state.Hash)), u.Host,
		result == connected}
}

// showResultAt redirects to a state's result page, and lets the browser that has finished
// show it: cookie is the one that has just been compared with the state's.
func (h *Handler) showResultAt(w http.ResponseWriter, result page, state invitations.State, cookie token.Secret) {
	if slices.Contains(goodResults, result) || state.ReturnURL != "" {
		h.cookies.writeResult(w, state.Hash, cookie)
	}
	seeOther(w, h.resultAddress(result, state))
}

// resultAddress returns the address of a state's result page. It names no secret, and it can
// only choose between texts of this package.
func (h *Handler) resultAddress(result page, state invitations.State) string {
	path := "/not-connected"
	switch {
	case result == connected:
		return h.public.String() + "/connected"
	case slices.Contains(goodResults, result):
		path = "/connected"
	}
	query := url.Values{"result": {string(result)}, "reference": {reference(state.Hash)}}
	return h.public.String() + path + "?" + query.Encode()
}

// connected serves GET /connected. Only a browser that finished a consent sees the result,
// and its own one.
func (h *Handler) connected(w http.ResponseWriter, r *http.Request, _ string) {
	asked, shown := askedResult(r, goodResults)
	state, err := h.finished(r)
	switch {
	case errors.Is(err, invitations.ErrNotFound):
		h.show(w, http.StatusOK, nothingConnected, view{})
		return
	case err != nil: // the browser has a result, so it is not told that nothing was connected
		h.cfg.Logger.LogAttrs(r.Context(), slog.LevelWarn, "a result page is shown without its state",
			slog.String("error", err.Error()))
		h.show(w, http.StatusOK, asked, shown)
		return
	}
	result := h.resultOf(r.Context(), state, asked)
	if !slices.Contains(goodResults, result) {
		h.show(w, http.StatusOK, nothingConnected, view{})
		return
	}
	if result == connected {
		shown = h.account(r.Context(), state)
		webpage.Protect(w.Header(), shown.images()...)
	}
	if shown.Back = h.back(r.Context(), state, result); shown.Back != nil && shown.Back.Automatic {
		w.Header().Set("Refresh", fmt.Sprintf("%d; url=%s", int(readingTime.Seconds()), shown.Back.Address))
	}
	h.show(w, http.StatusOK, result, shown)
}

// resultOf returns the recorded result of a state. Without one, the address has it, except
// for what the connection itself shows.
func (h *Handler) resultOf(ctx context.Context, state invitations.State, asked page) page {
	switch {
	case state.Result != "":
		return page(state.Result)
	case asked != connected && asked != alreadyConnected:
		return asked
	case h.unrecorded(ctx, state) != alreadyConnected:
		return nothingConnected
	case state.ConsumedAt.IsZero():
		return alreadyConnected
	}
	return asked
}

// account says what was connected, unless the connection has changed since.
func (h *Handler) account(ctx context.Context, state invitations.State) view {
	shown := view{Connection: state.Connection.String()}
	h.addFace(ctx, &shown, state.Environment)
	standing, err := h.cfg.Consents.Standing(ctx, state.Connection)
	if err != nil || standing.Epoch != state.Epoch+1 || standing.Pin == nil {
		return shown
	}
	pin := standing.Pin
	shown.Login, shown.Company, shown.CompanyName = pin.Login, pin.Company, pin.CompanyName
	if shown.Login == "" && pin.ResourceOwner != "" {
		shown.Login = "Procore user number " + pin.ResourceOwner
	}
	return shown
}

// finished returns the state that this browser finished last. ErrNotFound.
func (h *Handler) finished(r *http.Request) (invitations.State, error) {
	stateHash, cookie, ok := h.cookies.readResult(r)
	if !ok {
		return invitations.State{}, invitations.ErrNotFound
	}
	state, err := h.cfg.Store.State(r.Context(), stateHash)
	if err == nil && !sameBrowser(state, cookie) {
		err = invitations.ErrNotFound
	}
	return state, err
}

// notConnected serves GET /not-connected. It knows what the address says and, in the browser
// that finished, where the person came from.
func (h *Handler) notConnected(w http.ResponseWriter, r *http.Request, _ string) {
	result, shown := askedResult(r, badResults)
	if state, err := h.finished(r); err == nil && reference(state.Hash) == shown.Reference {
		shown.Back = h.back(r.Context(), state, cmp.Or(page(state.Result), result))
	}
	h.show(w, http.StatusOK, result, shown)
}

// askedResult reads the address of a result page. The first of the results is the usual one.
func askedResult(r *http.Request, results []page) (page, view) {
	values, _ := strictQuery(r.URL.RawQuery)
	asked, shown := page(values["result"]), view{}
	if !slices.Contains(results, asked) {
		asked = results[0]
	}
	if referenceForm.MatchString(values["reference"]) {
		shown.Reference = values["reference"]
	}
	return asked, shown
}
