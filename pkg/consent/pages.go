package consent

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strconv"
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
	Login        string // the login that must sign in, if one is expected
	Company      string // the company id that must be chosen, if one is expected
	Reference    string // identifies the log line
}

//go:embed pages
var assets embed.FS

// pages holds every page with the style sheet inside, so that a browser fetches
// one answer only.
type pages struct {
	templates map[page]*template.Template
	styleHash string // of the style sheet, for the Content-Security-Policy
}

func parsePages() pages {
	style, err := assets.ReadFile("pages/style.css")
	if err != nil {
		panic(err) // embedded
	}
	sum := sha256.Sum256(style)
	frame := template.Must(template.New("frame.html").Funcs(template.FuncMap{
		"style": func() template.CSS { return template.CSS(style) },
	}).ParseFS(assets, "pages/frame.html"))
	all := pages{templates: map[page]*template.Template{}, styleHash: "sha256-" +
		base64.StdEncoding.EncodeToString(sum[:])}
	for _, name := range []page{invite, linkExpired, linkUnusable, linkUsed, stillWorking, refused, notFound,
		connected, verifying, notInstalled, alreadyConnected, denied, wrongAccount, superseded, failed, unavailable} {
		all.templates[name] = template.Must(template.Must(frame.Clone()).ParseFS(assets, "pages/"+string(name)+".html"))
	}
	return all
}

// show answers with a page.
func (h *Handler) show(w http.ResponseWriter, status int, name page, shown view) {
	shown.Organization, shown.Host = h.cfg.Organization, h.public.Host
	var body bytes.Buffer
	if err := h.pages.templates[name].Execute(&body, shown); err != nil {
		panic(err) // a bug in an embedded page; the tests render every one
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
}
