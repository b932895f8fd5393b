package consent

import (
	"bytes"
	"cmp"
	"embed"
	"html/template"
	"net/http"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/webpage"
)

// page names one of the embedded pages. The names of result pages are stored
// with states and appear in addresses.
type page string

const (
	invite       page = "invite"
	linkExpired  page = "link-expired"
	linkUnusable page = "link-unusable"
	linkUsed     page = "link-used"
	stillWorking page = "still-working"
	refused      page = "refused"
	notFound     page = "not-found"
	// nothingConnected is what /connected shows to a browser that has no result.
	nothingConnected page = "nothing-connected"
	// Results.
	connected        page = "connected"
	verifying        page = "verifying"
	notInstalled     page = "not-installed"
	alreadyConnected page = "already-connected"
	denied           page = "denied"
	wrongAccount     page = "wrong-account"
	superseded       page = "superseded"
	failed           page = "failed"
	unavailable      page = "unavailable"
)

// view is all that a page can show. The first two fields are on every page.
type view struct {
	Organization string // the owner of this installation; may be empty
	Host         string // of the public URL
	Connection   string
	SignIn       string // host of the authorization server
	Login        string // that must sign in, if one is expected, or that signed in
	Company      string // id of the company that must be chosen, if one is expected, or that was
	CompanyName  string // as the operator wrote it; may be empty
	Reference    string // identifies the log line
	App          string // name of the app; may be empty
	Logo         string // address of its logo; empty: it has none
	Renewal      *renewal
	Back         *back // nil: nowhere
}

// back is where the person goes from a result page.
type back struct {
	Address   string
	Host      string
	Automatic bool // after some seconds
}

// renewal is about a connection that somebody has connected before.
type renewal struct {
	Status rotation.Status
	Since  time.Time // of NeedsConsent: when the authorization server refused the refresh token; may be zero
}

// Lost, Works and Ended are for the template.
func (r renewal) Lost() bool  { return r.Status == rotation.NeedsConsent }
func (r renewal) Works() bool { return r.Status == rotation.Active }
func (r renewal) Ended() bool { return r.Status == rotation.Disconnected }

// renewalOf returns nil for a connection that nobody has connected before.
func renewalOf(standing rotation.Standing) *renewal {
	if standing.Pin == nil {
		return nil
	}
	return &renewal{standing.Status, standing.RefusedAt.UTC()}
}

// Party is the name of the one that asks, beside Procore's.
func (v view) Party() string { return cmp.Or(v.App, v.Organization, v.Host) }

// Initial stands in the place of a logo.
func (v view) Initial() string {
	first, _ := utf8.DecodeRuneInString(v.Party())
	return string(unicode.ToUpper(first))
}

//go:embed pages
var assets embed.FS

// pages holds every page with the style sheet inside, so that a browser fetches
// one answer only, or two if there is a logo.
type pages map[page]*template.Template

func parsePages() pages {
	frame := template.Must(template.New("frame.html").Funcs(webpage.Funcs()).ParseFS(assets, "pages/frame.html"))
	all := pages{}
	for _, name := range []page{invite, linkExpired, linkUnusable, linkUsed, stillWorking, refused, notFound,
		nothingConnected, connected, verifying, notInstalled, alreadyConnected, denied, wrongAccount, superseded, failed,
		unavailable} {
		all[name] = template.Must(template.Must(frame.Clone()).ParseFS(assets, "pages/"+string(name)+".html"))
	}
	return all
}

// show answers with a page.
func (h *Handler) show(w http.ResponseWriter, status int, name page, shown view) {
	shown.Organization, shown.Host = h.cfg.Organization, h.public.Host
	var body bytes.Buffer
	if err := h.pages[name].Execute(&body, shown); err != nil {
		panic(err) // a bug in an embedded page; the tests render every one
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
}
