package console

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/webpage"
)

// route is what serves a path: its pattern for access logs, and a function for each method.
type route struct {
	pattern string
	methods map[string]http.HandlerFunc
	open    bool // works without a login
}

// route finds what serves a path. Only these exact spellings exist.
func (h *Handler) route(path string) (route, bool) {
	get := func(do http.HandlerFunc) map[string]http.HandlerFunc {
		return map[string]http.HandlerFunc{"GET": do, "HEAD": do}
	}
	switch path {
	case "/":
		return route{pattern: "/{$}", methods: get(h.overview)}, true
	case "/events": // no HEAD: there is no end to it
		return route{pattern: path, methods: map[string]http.HandlerFunc{"GET": h.events}}, true
	case "/notices":
		return route{pattern: path, methods: get(func(w http.ResponseWriter, _ *http.Request) {
			seeOther(w, "/#notices")
		})}, true
	case "/console/console.js":
		return route{pattern: path, methods: get(serveAsset("text/javascript", script)), open: true}, true
	case "/console/console.css":
		return route{pattern: path, methods: get(serveAsset("text/css", styleSheet)), open: true}, true
	case "/login":
		if !h.guard.login() {
			return route{}, false
		}
		methods := get(h.loginPage)
		methods["POST"] = h.logIn
		return route{pattern: path, methods: methods, open: true}, true
	case "/logout":
		if !h.guard.login() {
			return route{}, false
		}
		return route{pattern: path, methods: map[string]http.HandlerFunc{"POST": h.logOut}}, true
	}
	if !strings.HasPrefix(path, "/") {
		return route{}, false
	}
	parts := strings.Split(path, "/") // "", first, ...
	switch {
	case len(parts) == 3 && parts[1] == "experiments" && h.cfg.Experiments != nil && plainWord(parts[2]):
		return route{pattern: "/experiments/{name}", methods: map[string]http.HandlerFunc{
			"POST": func(w http.ResponseWriter, r *http.Request) { h.experiment(w, r, parts[2]) }}}, true
	case len(parts) >= 4 && len(parts) <= 5 && parts[1] == "connections":
		c, err := token.ParseConnection(parts[2] + "/" + parts[3])
		if err != nil {
			return route{}, false
		}
		if len(parts) == 4 {
			return route{pattern: "/connections/{environment}/{name}", methods: get(
				func(w http.ResponseWriter, r *http.Request) { h.connection(w, r, c) })}, true
		}
		do, known := actions[parts[4]]
		return route{pattern: "/connections/{environment}/{name}/" + parts[4], methods: map[string]http.HandlerFunc{
			"POST": func(w http.ResponseWriter, r *http.Request) { h.act(w, r, c, do) }}}, known
	}
	return route{}, false
}

// plainWord reports whether text is the name of an experiment by its form.
func plainWord(text string) bool {
	return text != "" && len(text) <= 64 && strings.Trim(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// ServeHTTP implements http.Handler. Like http.ServeMux it sets the request's Pattern.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	webpage.Protect(w.Header(), "form-action 'self'", "script-src 'self'", "style-src 'self'", "connect-src 'self'")
	// With no-referrer, a browser names no origin in the POST of a form. Other sites still learn nothing.
	w.Header().Set("Referrer-Policy", "same-origin")
	if h.public.Scheme == "https" {
		w.Header().Set("Strict-Transport-Security", "max-age=31536000")
	}
	found, known := h.route(r.URL.Path)
	if r.URL.EscapedPath() != r.URL.Path { // another spelling of a path is another path
		known = false
	}
	serve, allowed := found.methods[r.Method]
	if known && allowed {
		r.Pattern = r.Method + " " + found.pattern
	}
	if status, why := h.guard.refuses(r); status != 0 { // before anything is said about what exists
		h.fail(w, r, status, why)
		return
	}
	switch {
	case !known:
		h.fail(w, r, http.StatusNotFound, "There is no such page.")
	case !allowed:
		w.Header().Set("Allow", strings.Join(slices.Sorted(maps.Keys(found.methods)), ", "))
		h.fail(w, r, http.StatusMethodNotAllowed, "This page does not take "+methodName(r.Method)+" requests.")
	case r.Method == http.MethodPost:
		h.post(w, r, found, serve)
	case crossSiteNavigation(r):
		// The browser withholds the cookie from a request that another site has begun. The
		// page that follows is requested by this one.
		h.show(w, r, http.StatusOK, "continue", view{Continue: r.URL.RequestURI()})
	case !found.open && !h.guard.admits(r):
		if r.URL.Path == "/events" {
			h.fail(w, r, http.StatusUnauthorized, "You are not logged in.")
			return
		}
		seeOther(w, "/login")
	default:
		serve(w, r)
	}
}

// post serves a request that changes something, after it was shown to come from a page of
// this handler.
func (h *Handler) post(w http.ResponseWriter, r *http.Request, found route, serve http.HandlerFunc) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if !found.open && !h.guard.admits(r) {
		h.fail(w, r, http.StatusUnauthorized, "You are not logged in. Log in and try again.")
		return
	}
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	if strings.TrimSpace(kind) != "application/x-www-form-urlencoded" {
		h.fail(w, r, http.StatusUnsupportedMediaType, "This is not a form.")
		return
	}
	if err := r.ParseForm(); err != nil {
		status := http.StatusBadRequest
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			status = http.StatusRequestEntityTooLarge
		}
		h.fail(w, r, status, "The form cannot be read.")
		return
	}
	if !h.guard.ours(r, r.PostForm.Get("csrf")) {
		h.fail(w, r, http.StatusForbidden, "This form is not from a page that this browser has open, or tokenturn was "+
			"started again since. Nothing was changed. Reload the page and try again.")
		return
	}
	serve(w, r)
}

// maxForm bounds the body of a POST. A refresh token is the largest value in one.
const maxForm = 16 << 10

func methodName(method string) string {
	if len(method) > 10 {
		return "such"
	}
	return method
}

// seeOther redirects within the console.
func seeOther(w http.ResponseWriter, path string) {
	w.Header().Set("Location", path)
	w.WriteHeader(http.StatusSeeOther)
}
