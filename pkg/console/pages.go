package console

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
	"github.com/tokenturn/tokenturn/pkg/webpage"
)

//go:embed *.html
var pageFiles embed.FS

//go:embed console.js
var script string

//go:embed console.css
var styleSheet string

func parsePages() *template.Template {
	return template.Must(template.New("").Funcs(webpage.Funcs()).Funcs(template.FuncMap{
		"when": whenElement, "left": left, "words": func(kind string) string { return strings.ReplaceAll(kind, "_", " ") },
		"runbook": func(file string) string { return runbooks + file },
		"millis":  func(m moment) int64 { return int64(m) }, "count": count,
		"prose":   prose,
		"rowview": func(r row, now time.Time) rowView { return rowView{r, now} },
		"add":     func(a, b any) float64 { return number(a) + number(b) },
	}).ParseFS(pageFiles, "*.html"))
}

// runbooks is where the runbooks are published.
const runbooks = "https://github.com/tokenturn/tokenturn/blob/main/infra/runbooks/"

// view is what every page knows. The pages use what they need of it.
type view struct {
	Title    string
	Now      time.Time
	Boot     string
	Seq      uint64
	CSRF     string
	Login    bool // people log in and out
	Act      bool // there are actions
	Demo     bool // there are experiments
	Install  string
	Command  string
	Cadence  string
	Continue string
	Message  string
	Problem  bool // Message is about something that did not work
	Link     string
	Until    time.Time
	Back     string
	Overview overview
	One      one
}

// view is what all pages know. It contains nothing of one browser, so that parts can be shared.
func (h *Handler) view(now time.Time) view {
	v := view{Now: now, Boot: h.boot, Act: h.cfg.Actions != nil, Demo: h.cfg.Experiments != nil,
		Login: h.guard.login(), Command: h.cfg.Command,
		Install: h.cfg.Installation}
	if h.cfg.Cadence > 0 {
		v.Cadence = duration(h.cfg.Cadence)
	}
	return v
}

// experiments are the faults with their present state.
func (h *Handler) experiments() []Experiment {
	if h.cfg.Experiments == nil {
		return nil
	}
	return h.cfg.Experiments.Experiments()
}

// show answers with a page.
func (h *Handler) show(w http.ResponseWriter, r *http.Request, status int, name string, v view) {
	base := h.view(h.cfg.Now())
	base.Title, base.Message, base.Problem, base.Link, base.Until, base.Back = v.Title, v.Message, v.Problem, v.Link,
		v.Until, v.Back
	base.Continue, base.Overview, base.One, base.Seq = v.Continue, v.Overview, v.One, v.Seq
	if v.Continue == "" {
		base.CSRF = h.guard.formToken(h.guard.mark(w, r))
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	page := h.render(name, base)
	header.Set("Content-Length", fmt.Sprint(len(page)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte(page))
	}
}

// fail answers a request that gets no page. It says nothing about what exists.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, status int, why string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	v := h.view(h.cfg.Now())
	v.Title, v.Message = http.StatusText(status), why
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte(h.render("fail", v)))
	}
}

// render executes a template.
func (h *Handler) render(name string, data any) string {
	var out bytes.Buffer
	if err := h.pages.ExecuteTemplate(&out, name, data); err != nil {
		panic(err) // a fault in an embedded page
	}
	return out.String()
}

func serveAsset(kind, content string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind+"; charset=utf-8")
		if r.Method != http.MethodHead {
			_, _ = w.Write([]byte(content))
		}
	}
}

// whenElement shows how far a time is from now. The script keeps that true. verb, if any, is
// "due", for what happens now if it is overdue, or "expires".
func whenElement(t any, now time.Time, verb ...string) template.HTML {
	at, ok := t.(time.Time)
	if m, isMoment := t.(moment); isMoment {
		at, ok = m.Time(), true
	}
	if !ok || at.IsZero() {
		return "–"
	}
	about, text := "", distance(at, now)
	for _, verb := range verb {
		about = fmt.Sprintf(` data-verb="%s"`, verb)
		text = inSentence(verb, at, now)
	}
	return template.HTML(fmt.Sprintf(`<time datetime="%s"%s>%s</time>`, at.UTC().Format("2006-01-02T15:04:05Z"), about, text))
}

// inSentence is distance with a verb.
func inSentence(verb string, at, now time.Time) string {
	text := distance(at, now)
	switch past := !at.After(now); {
	case verb == "due" && past:
		return "now"
	case verb == "expires" && past:
		return "expired " + text
	case verb == "expires":
		return "expires " + text
	}
	return text
}

// distance says in words how far a time is from now. console.js has the same words.
func distance(t, now time.Time) string {
	d := t.Sub(now)
	size := d.Abs()
	text := duration(size)
	switch {
	case size < time.Second:
		return "now"
	case d < 0:
		return text + " ago"
	}
	return "in " + text
}

// duration is a length of time as precisely as a person needs it.
func duration(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

// left is how much of an access token's life is left, in percent.
func left(r row, now time.Time) int64 {
	if r.Expires == 0 || r.Expires <= r.Issued {
		return 0
	}
	rest, life := int64(r.Expires)-now.UnixMilli(), int64(r.Expires-r.Issued)
	return min(max(rest*100/life, 0), 100)
}

func count(n int, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// prose is text of a message, with what it puts in backquotes as code.
func prose(text string) template.HTML {
	var out strings.Builder
	for i, piece := range strings.Split(text, "`") {
		piece = template.HTMLEscapeString(piece)
		if i%2 == 1 && i < strings.Count(text, "`") {
			piece = "<code>" + piece + "</code>"
		} else if i%2 == 1 {
			piece = "`" + piece
		}
		out.WriteString(piece)
	}
	return template.HTML(out.String())
}

func number(v any) float64 {
	switch n := v.(type) {
	case float64:
		return n
	case int:
		return float64(n)
	}
	panic("not a number in a template")
}

// rowView is the data of the template "row".
type rowView struct {
	Row row
	Now time.Time
}

// overview is what the overview shows.
type overview struct {
	List    list
	Rows    []rowView
	Summary summary
	Needs   []tracked // at most maxCards
	More    int       // needs that are not shown
	Kept    bool      // notices are kept
	Notices []noticed
	Older   int // notices that are not shown
	Fault   string
	// Redirect is the redirect URI of a new app.
	Redirect string
	Panel    []Experiment

	Statuses, Sorts []choice
}

const (
	maxCards        = 6
	maxShownNotices = 12
)

// overviewOf is the view of the overview, without what is of one browser.
func (h *Handler) overviewOf(now snapshot, chosen list) view {
	v := h.view(h.cfg.Now())
	o := overview{List: chosen, Summary: now.summary, Needs: now.needs[:min(len(now.needs), maxCards)],
		Kept: h.cfg.Notices != nil, Notices: now.noticed(v.Act), Fault: now.fault,
		Redirect: h.cfg.RedirectURI, Panel: h.experiments(), Statuses: statuses, Sorts: sorts}
	o.More = len(now.needs) - len(o.Needs)
	o.Older = len(now.notices) - len(o.Notices)
	v.Overview, v.Seq = o, now.seq
	return v
}

// part is a piece of the overview that is replaced as a whole, with the number of its last change.
type part struct {
	name string
	seq  uint64
}

func (h *Handler) parts(now snapshot) []part {
	all := []part{{"fault", now.faultSeq}, {"summary", now.summarySeq}, {"attention", now.needsSeq},
		{"pages", now.summarySeq}, {"notices", now.noticesSeq}}
	if h.cfg.Experiments != nil {
		all = append(all, part{"panel", now.experimentsSeq})
	}
	return all
}

func (h *Handler) overview(w http.ResponseWriter, r *http.Request) {
	if len(r.URL.RawQuery) > maxQuery {
		h.fail(w, r, http.StatusBadRequest, "The query is too long.")
		return
	}
	now, err := h.refresh(r.Context(), 0)
	if err != nil && !now.known {
		h.fail(w, r, http.StatusServiceUnavailable, "The connections cannot be listed: "+sentence(err.Error()))
		return
	}
	chosen := parseQuery(r.URL.RawQuery).choose(now.rows)
	v := h.overviewOf(now, chosen)
	for _, t := range chosen.Rows {
		v.Overview.Rows = append(v.Overview.Rows, rowView{t.row, v.Now})
	}
	h.show(w, r, http.StatusOK, "overview", v)
}

// noticed is a notice as the overview shows it.
type noticed struct {
	rotation.Notice
	Invite bool // it has a link, which is not shown; the connection still needs one, and can get one here
}

// noticed are the newest notices.
func (s snapshot) noticed(act bool) (shown []noticed) {
	for _, n := range s.notices[:min(len(s.notices), maxShownNotices)] {
		shown = append(shown, noticed{n, act && !n.Link.IsZero() && slices.ContainsFunc(s.needs, func(t tracked) bool {
			return t.Connection == n.Connection && t.Need.Action == "invite"
		})})
	}
	return shown
}

// about are the notices about one connection.
func about(notices []rotation.Notice, c token.Connection) (found []rotation.Notice) {
	for _, n := range notices {
		if n.Connection == c {
			found = append(found, n)
		}
	}
	return found
}
