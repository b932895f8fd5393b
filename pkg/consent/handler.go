package consent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/webpage"
)

// Observer receives what is worth counting. It must return at once and be safe
// for concurrent use.
type Observer interface {
	// Ended reports that a consent to c ended. The outcome is the name of the page
	// that the person is shown.
	Ended(c token.Connection, outcome string)
	// Reused reports that a redirect arrived again from its own browser after its
	// state had been used, usually by a reload.
	Reused(c token.Connection)
	// HostRefused reports that a page was asked for under another host name than that of
	// the public URL, and refused.
	HostRefused()
}

// noObserver is the Observer of a handler that was configured without one.
type noObserver struct{}

func (noObserver) Ended(token.Connection, string) {}
func (noObserver) Reused(token.Connection)        {}
func (noObserver) HostRefused()                   {}

// Config wires a Handler. Every field but Organization, ReturnOrigins, Observer and Faces is
// required.
type Config struct {
	Store        invitations.Store
	Consents     *rotation.Consents
	Applications rotation.Applications
	// AuthorizeURL makes the address of the authorization page.
	AuthorizeURL func(app rotation.Application, redirectURI, state, codeChallenge string) string
	// PublicURL is the base under which people reach the handler: https://, or
	// http:// on a loopback address. A path in it may or may not be stripped on the way.
	PublicURL string
	// Organization is the name under which visitors know the owner of this
	// installation, such as a company's name; at most 80 characters.
	Organization string
	// ReturnOrigins are the origins that the return URL of an invitation may have, as
	// invitations.ParseReturnOrigins returns them.
	ReturnOrigins []string
	// Observer receives how consents end; may be nil.
	Observer Observer
	// Faces finds what people see of the app of an environment; may be nil.
	Faces  func(ctx context.Context, environment string) (Face, error)
	Logger *slog.Logger
	Now    func() time.Time
}

// Handler serves the routes that the package comment lists, and GET /healthz.
// It is safe for concurrent use.
type Handler struct {
	cfg     Config
	public  *url.URL
	cookies cookieJar
	pages   pages
	faces   faces
	origins *http.CrossOriginProtection
	routes  map[string]route
}

// route is a path and, by method, what serves it. argument is what follows the second slash.
type route struct {
	path    string
	methods methods
}

type methods = map[string]func(w http.ResponseWriter, r *http.Request, argument string)

// New checks the configuration and reports all problems at once.
func New(cfg Config) (*Handler, error) {
	public, err := invitations.ParsePublicURL(cfg.PublicURL)
	problems := []error{err, CheckOrganization(cfg.Organization)}
	for _, field := range []struct {
		name    string
		missing bool
	}{
		{"Store", cfg.Store == nil}, {"Consents", cfg.Consents == nil}, {"Applications", cfg.Applications == nil},
		{"AuthorizeURL", cfg.AuthorizeURL == nil}, {"Logger", cfg.Logger == nil}, {"Now", cfg.Now == nil},
	} {
		if field.missing {
			problems = append(problems, fmt.Errorf("consent.Config.%s is missing", field.name))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	if cfg.Observer == nil {
		cfg.Observer = noObserver{}
	}
	h := &Handler{cfg: cfg, public: public, cookies: cookieJar{plain: public.Scheme == "http"},
		pages: parsePages(), origins: http.NewCrossOriginProtection()}
	h.routes = map[string]route{
		"connect/": {"/connect/{invitation}", methods{"GET": h.invitation, "HEAD": h.invitation, "POST": h.start}},
		// No HEAD: it would consume the state and show nothing.
		"callback/":     {"/callback/{environment}", methods{"GET": h.callback}},
		"logo/":         {"/logo/{environment}", methods{"GET": h.logo, "HEAD": h.logo}},
		"connected":     {"/connected", methods{"GET": h.connected, "HEAD": h.connected}},
		"not-connected": {"/not-connected", methods{"GET": h.notConnected, "HEAD": h.notConnected}},
		"healthz":       {"/healthz", methods{"GET": h.healthy, "HEAD": h.healthy}},
	}
	return h, nil
}

// ServeHTTP implements http.Handler. Like http.ServeMux it sets the request's Pattern. An access
// log may record that and not the path, because the path of an invitation contains its secret.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.protect(w.Header())
	path := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, h.public.Path), "/")
	name, argument, nested := strings.Cut(path, "/")
	if nested {
		name += "/"
	}
	found, known := h.routes[name]
	serve, allowed := found.methods[r.Method]
	if allowed {
		r.Pattern = r.Method + " " + found.path
	}
	switch {
	case !known:
		h.show(w, http.StatusNotFound, notFound, view{})
	case !allowed:
		w.Header().Set("Allow", strings.Join(slices.Sorted(maps.Keys(found.methods)), ", "))
		h.show(w, http.StatusMethodNotAllowed, notFound, view{})
	case name != "healthz" && invitations.CanonicalHost(h.public.Scheme, r.Host) !=
		invitations.CanonicalHost(h.public.Scheme, h.public.Host):
		h.cfg.Observer.HostRefused()
		h.refuse(w, r, "the Host header is not "+h.public.Host, slog.String("host", r.Host[:min(len(r.Host), 100)]))
	default:
		serve(w, r, argument)
	}
}

// CheckOrganization reports what is wrong with a Config.Organization.
func CheckOrganization(name string) error {
	if utf8.RuneCountInString(name) > 80 || !printable(name) {
		return errors.New("the organization name must have at most 80 characters, all printable")
	}
	return nil
}

// protect sets the headers that every answer has.
func (h *Handler) protect(header http.Header) {
	// Only the invitation page overrides the Referrer-Policy, with a meta element: see invite.html.
	webpage.Protect(header)
	if h.public.Scheme == "https" {
		header.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// seeOther redirects to an address inside or outside the handler. http.Redirect would
// repeat the address, which may contain a state, in the body.
func seeOther(w http.ResponseWriter, address string) {
	w.Header().Set("Location", address)
	w.WriteHeader(http.StatusSeeOther)
}

// refuse is the one answer to every request that cannot be trusted: the same
// bytes for every reason. The reason goes to the log only. A refusal that is about
// a connection passed the checks of form and is logged as a warning. So is one for
// its Host header: a proxy that replaces the header makes every page such a refusal.
// Anybody can cause the others, so they are logged at level debug.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, why string, about ...slog.Attr) {
	level := slog.LevelDebug
	if len(about) > 0 {
		level = slog.LevelWarn
	}
	h.cfg.Logger.LogAttrs(r.Context(), level, "request refused", append(about, slog.String("reason", why))...)
	h.show(w, http.StatusBadRequest, refused, view{})
}

// unavailable says that nothing was changed and that trying again may help.
// The reference on the page is derived from event.
func (h *Handler) unavailable(w http.ResponseWriter, r *http.Request, event string, err error, about ...slog.Attr) {
	mark := reference(event)
	h.cfg.Logger.LogAttrs(r.Context(), slog.LevelError, "consent is out of service",
		append(about, slog.String("reference", mark), slog.String("error", err.Error()))...)
	w.Header().Set("Retry-After", "120")
	h.show(w, http.StatusServiceUnavailable, unavailable, view{Reference: mark})
}

func (h *Handler) healthy(w http.ResponseWriter, _ *http.Request, _ string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n"))
}
