package console

import (
	"context"
	"net/http"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// action carries out what a form asks for.
type action struct {
	name string
	// confirmed: the form must contain the connection's name, which the person has typed
	confirmed bool
	do        func(context.Context, Actions, token.Connection) (string, error) // nil: see act
}

// actions are the actions by the last part of the path. Two need more than the connection.
var actions = map[string]action{
	"rotate": {"rotate", false, func(ctx context.Context, a Actions, c token.Connection) (string, error) {
		return a.Rotate(ctx, c)
	}},
	"discard": {"discard", true, func(ctx context.Context, a Actions, c token.Connection) (string, error) {
		return a.Discard(ctx, c)
	}},
	"disconnect": {"disconnect", true, func(ctx context.Context, a Actions, c token.Connection) (string, error) {
		return a.Disconnect(ctx, c)
	}},
	"release": {name: "release"},
	"invite":  {name: "invite"},
}

// act answers with a page that says what was done. The script shows it in a dialog.
func (h *Handler) act(w http.ResponseWriter, r *http.Request, c token.Connection, do action) {
	back := "/connections/" + c.String()
	result := func(status int, text string, problem bool) {
		h.show(w, r, status, "result", view{Title: c.String(), Message: text, Problem: problem, Back: back})
	}
	switch {
	case h.cfg.Actions == nil:
		result(http.StatusForbidden, "This console is read-only. Nothing was changed.", true)
		return
	case do.confirmed && r.PostForm.Get("confirm") != c.String():
		result(http.StatusBadRequest, "That is not "+c.String()+". Nothing was changed.", true)
		return
	case do.name == "release" && r.PostForm.Get("refresh_token") == "":
		result(http.StatusBadRequest, "No refresh token was entered. Nothing was changed.", true)
		return
	}
	// What has begun is finished, even if the browser leaves: a token pair could be lost.
	ctx := context.WithoutCancel(r.Context())
	defer h.hurry()
	if do.name == "invite" {
		h.invite(ctx, w, r, c)
		return
	}
	var text string
	var err error
	if do.name == "release" {
		text, err = h.cfg.Actions.Release(ctx, c, token.NewSecret(r.PostForm.Get("refresh_token")))
	} else {
		text, err = do.do(ctx, h.cfg.Actions, c)
	}
	if err != nil {
		h.cfg.Logger.WarnContext(ctx, "console action failed", "action", do.name, "connection", c.String(), "error", err)
		result(http.StatusConflict, err.Error(), true)
		return
	}
	h.cfg.Logger.InfoContext(ctx, "console action done", "action", do.name, "connection", c.String())
	result(http.StatusOK, text, false)
}

// invite shows a link, once. It is in no other page and not in the log.
func (h *Handler) invite(ctx context.Context, w http.ResponseWriter, r *http.Request, c token.Connection) {
	link, until, err := h.cfg.Actions.Invite(ctx, c)
	if err != nil {
		h.cfg.Logger.WarnContext(ctx, "console action failed", "action", "invite", "connection", c.String(), "error", err)
		h.show(w, r, http.StatusConflict, "result", view{Title: c.String(), Message: err.Error(), Problem: true,
			Back: "/connections/" + c.String()})
		return
	}
	h.cfg.Logger.InfoContext(ctx, "console action done: a consent link was created and shown", "action", "invite",
		"connection", c.String(), "valid_until", until)
	h.show(w, r, http.StatusOK, "result", view{Title: c.String(), Link: link.Reveal(), Until: until,
		Message: "Send this link to the person who connects " + c.String() + ". It connects once. It is shown only now.",
		Back:    "/connections/" + c.String()})
}

// experiment starts one of the demo's faults.
func (h *Handler) experiment(w http.ResponseWriter, r *http.Request, name string) {
	if err := h.cfg.Experiments.Start(context.WithoutCancel(r.Context()), name); err != nil {
		h.show(w, r, http.StatusConflict, "result", view{Title: "Experiment", Message: err.Error(), Problem: true,
			Back: "/#experiments"})
		return
	}
	h.hurry()
	if r.Header.Get("X-Tokenturn-Script") != "" { // the page shows it by itself
		w.WriteHeader(http.StatusNoContent)
		return
	}
	seeOther(w, "/#experiments")
}
