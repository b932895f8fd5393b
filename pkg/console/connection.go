package console

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// one is what the page of one connection shows.
type one struct {
	Row         row
	Now         time.Time
	Name        string
	Epoch       int64
	Pin         *rotation.Pin
	Service     bool
	Secret      string // name in the secret store; empty: the embedded store
	Puts        int    // versions of the secret in the last 24 hours
	AtLeast     bool   // or more
	PutsPerDay  int    // 0: no limit
	Attempt     *rotation.Attempt
	Failures    []fault
	Quarantined bool
	// CanRotate, CanInvite and CanDisconnect: it makes sense now.
	CanRotate, CanDisconnect bool
	Life                     life
	Events                   []happened
	MoreEvents               bool
	Notices                  []noticed
	Kept                     bool
	Readings                 []reading
}

// fault is a failure in words.
type fault struct {
	Text string
	Next time.Time
}

// happened is a row of the history in words.
type happened struct {
	At         time.Time
	Text       string
	Detail     string
	Tone       string
	Generation string
}

// reading is how to read the token in one language.
type reading struct{ ID, Language, Code string }

const (
	// eventsRead is how much of the history the page reads; a rotation is two events.
	eventsRead = 200
	// eventsShown is how many events are in the table.
	eventsShown = 60
)

func (h *Handler) connection(w http.ResponseWriter, r *http.Request, c token.Connection) {
	before, _ := h.state.get() // what happens from here on may be missing on the page
	rec, responses, err := h.cfg.Connections.Load(r.Context(), c)
	if err == nil && rec.Revision == "" {
		h.fail(w, r, http.StatusNotFound, "There is no connection "+c.String()+".")
		return
	}
	var events []rotation.Event
	if err == nil {
		events, err = h.cfg.Connections.History(r.Context(), c, eventsRead)
	}
	if err != nil {
		h.cfg.Logger.ErrorContext(r.Context(), "the console cannot read a connection", "connection", c.String(), "error", err)
		h.fail(w, r, http.StatusServiceUnavailable, "The connection cannot be read: "+sentence(err.Error()))
		return
	}
	now := h.cfg.Now()
	o := one{Row: describe(rec, shownBy(rec, events), now), Now: now, Name: c.String(), Epoch: rec.Epoch, Pin: rec.Pin,
		Service: rec.ServiceAccount, PutsPerDay: h.cfg.PutsPerDay, Attempt: rec.Attempt,
		Quarantined: rotation.HasQuarantined(rec, responses), Kept: h.cfg.Notices != nil,
		CanRotate:     rec.Status == rotation.Active || rec.Status == rotation.NeedsConsent,
		CanDisconnect: rec.Status != rotation.Disconnected, Readings: h.readings(c)}
	if h.cfg.SecretPrefix != "" {
		o.Secret = h.cfg.SecretPrefix + "/connection/" + c.String()
	}
	o.Puts, o.AtLeast = h.putsOf(rec, events, now)
	for _, f := range rec.Failures {
		if f.Class != "quarantine" {
			o.Failures = append(o.Failures, fault{wholeSentence(f.Summary()), f.NextAt})
		}
	}
	var notices []rotation.Notice
	if h.cfg.Notices != nil {
		notices = about(h.cfg.Notices(), c)
	}
	for _, n := range notices {
		o.Notices = append(o.Notices, noticed{n, h.cfg.Actions != nil && !n.Link.IsZero() && o.Row.Need.Action == "invite"})
	}
	o.Life = drawLife(rec, events, notices, now)
	o.Events = historyInWords(events, now)
	o.MoreEvents = len(events) > eventsShown
	h.show(w, r, http.StatusOK, "connection", view{Title: c.String(), Seq: before.seq, One: o})
}

// historyInWords describes the newest events. A pair that ends trouble is a recovery.
func historyInWords(newestFirst []rotation.Event, now time.Time) (words []happened) {
	troubled := false
	for _, e := range oldestFirst(newestFirst, now) {
		w := inWords(e)
		if symbolOf(e, troubled) == "recovery" && e.Kind == "decided" {
			w.Text = "Recovery: a new token pair is saved"
		}
		troubled = troubledBy(e, troubled)
		words = append(words, w)
	}
	slices.Reverse(words)
	return words[:min(len(words), eventsShown)]
}

// troubledBy reports whether a pair that comes after e is a recovery.
func troubledBy(e rotation.Event, before bool) bool {
	switch {
	case e.Kind == "decided" || e.Kind == "adopted":
		return false
	case isLost(e) || e.Kind == "needs_consent":
		return true
	}
	return before
}

// putsOf counts the versions of the secret in the last 24 hours. Without a limit, the record
// does not count them, but the history shows them; atLeast: it does not reach back far enough.
func (h *Handler) putsOf(rec rotation.Record, events []rotation.Event, now time.Time) (puts int, atLeast bool) {
	recent := func(at time.Time) bool { return now.Sub(at) < 24*time.Hour }
	if h.cfg.PutsPerDay > 0 {
		for _, put := range rec.Puts {
			if recent(time.Unix(put, 0)) {
				puts++
			}
		}
		return puts, false
	}
	for _, e := range events {
		if e.Kind == "published" && recent(e.At) {
			puts++
		}
	}
	return puts, len(events) == eventsRead && recent(events[len(events)-1].At)
}

// inWords describes an event for people.
func inWords(e rotation.Event) happened {
	w := happened{At: e.At, Generation: generation(e.Epoch, e.Generation), Detail: e.Detail}
	switch e.Kind {
	case "registered":
		w.Text, w.Tone = "Connection created", "info"
	case "decided", "adopted":
		w.Tone = "good"
		switch rotation.Source(e.Detail) {
		case rotation.FromCode:
			w.Text, w.Detail = "Consent: the first token pair is saved", ""
		case rotation.FromImport:
			w.Text, w.Detail = "Import of a refresh token", ""
		case rotation.FromClient:
			w.Text, w.Detail = "New access token of the service account", ""
		case rotation.FromRefresh:
			w.Text, w.Detail = "Redeem: a new token pair is saved", ""
		default:
			w.Text = "A token pair is current"
		}
		if e.Kind == "adopted" {
			w.Text = "Recovery: a token pair was found in the secret store"
		}
	case "published":
		w.Text, w.Tone = "Publish: readers see the new access token", "good"
		if runes := []rune(w.Detail); len(runes) > 16 {
			w.Detail = string(runes[:16]) + "…"
		}
	case "ended":
		w.Text, w.Tone = "Attempt ended without a new token pair", "warn"
		if isLost(e) {
			w.Text = "Unknown: the response was lost"
		}
	case "needs_consent":
		w.Text, w.Tone = "Refused: the connection needs a new consent", "bad"
	case "refused":
		w.Text, w.Tone = "Refused again", "bad"
	case "quarantined":
		w.Text, w.Tone = "A token response is quarantined", "bad"
	case "rejected":
		w.Text, w.Tone = "A token response was rejected", "bad"
	case "revoked":
		w.Text, w.Tone = "A token pair was revoked", "off"
	case "disconnected":
		w.Text, w.Tone = "Disconnected", "off"
	default:
		w.Text, w.Tone = strings.ToUpper(e.Kind[:min(1, len(e.Kind))])+strings.ReplaceAll(e.Kind[min(1, len(e.Kind)):], "_",
			" "), "off"
	}
	return w
}

// isLost reports whether an attempt ended with an unknown result.
func isLost(e rotation.Event) bool {
	return e.Kind == "ended" && (strings.Contains(e.Detail, "lost") || strings.Contains(e.Detail, "unknown"))
}

// readings are the ways to read the token of c.
func (h *Handler) readings(c token.Connection) []reading {
	name, run := c.String(), h.cfg.Command
	if h.cfg.SecretPrefix == "" {
		return append(h.overHTTP(c), []reading{
			{"bash", "bash", run + " token print " + name + "\n\n# or for one command only, without printing it:\n" + run +
				" token exec " + name + " -- ./report"},
			{"go", "Go", "// Run the program with: " + run + " token exec " + name + " -- go run .\n" +
				"request.Header.Set(\"Authorization\", \"Bearer \"+os.Getenv(\"PROCORE_ACCESS_TOKEN\"))"},
			{"python", "Python", "# Run the program with: " + run + " token exec " + name + " -- python3 report.py\n" +
				"import os\n\nheaders = {\"Authorization\": \"Bearer \" + os.environ[\"PROCORE_ACCESS_TOKEN\"]}"},
			{"typescript", "TypeScript", "// Run the program with: " + run + " token exec " + name + " -- node report.mts\n" +
				"const headers = { Authorization: `Bearer ${process.env.PROCORE_ACCESS_TOKEN}` };"},
		}...)
	}
	prefix := h.cfg.SecretPrefix
	goSource, python, typescript, bash := "", "", "", ""
	if prefix != "tokenturn" {
		goSource = ", tokensource.WithPrefix(\"" + prefix + "\")"
		python = ", prefix=\"" + prefix + "\""
		typescript = ", \"" + prefix + "\""
		bash = "PROCORE_PREFIX=" + prefix + "\n"
	}
	return []reading{
		{"go", "Go", "source, err := tokensource.New(secretsmanager.NewFromConfig(cfg), \"" + name + "\"" + goSource + ")\n" +
			"if err != nil {\n\treturn err\n}\n" +
			"document, err := source.Document(ctx)\nif err != nil {\n\treturn err\n}\n" +
			"client := source.Client(ctx) // sends the token and the company; reads again on a 401\n" +
			"response, err := client.Get(document.APIURL + \"/rest/v1.0/me\")"},
		{"python", "Python", "# with infra/examples/python/procore.py beside your program\n" +
			"from procore import Connection\n\n" +
			"connection = Connection(\"" + name + "\"" + python + ")\n" +
			"answer = connection.request(\"GET\", \"/rest/v1.0/me\")\nprint(answer.status, answer.json())"},
		{"typescript", "TypeScript", "// with infra/examples/typescript/procore.mts beside your program\n" +
			"import { Connection } from \"./procore.mts\";\n\n" +
			"const connection = new Connection(\"" + name + "\"" + typescript + ");\n" +
			"const answer = await connection.fetch(\"/rest/v1.0/me\");\nconsole.log(answer.status, await answer.json());"},
		{"bash", "bash", "# with infra/examples/bash/procore.sh beside your script\nsource procore.sh\nPROCORE_CONNECTION=" +
			name + "\n" + bash + "procore /rest/v1.0/me"},
	}
}

// overHTTP is the way to read the token of c from this process, if it has one.
func (h *Handler) overHTTP(c token.Connection) []reading {
	if h.cfg.ReaderToken == "" {
		return nil
	}
	return []reading{{"curl", "curl", "# for programs that may read " + h.cfg.ReaderToken + "\n" +
		"curl -s -H @- '" + h.public.String() + "/secretsmanager/get?secretId=tokenturn/connection/" + c.String() + "' \\\n" +
		"    <<<\"X-Aws-Parameters-Secrets-Token: $(<" + h.cfg.ReaderToken + ")\" | jq -r '.SecretString | fromjson | " +
		".access_token'"}}
}

// oldestFirst is events from the oldest to the newest. A clock that was ahead has written times
// that are still to come: such an event is before those of later generations.
func oldestFirst(events []rotation.Event, now time.Time) []rotation.Event {
	events = slices.Clone(events)
	slices.Reverse(events)
	written := slices.Clone(events)
	latest := func(e rotation.Event) time.Time {
		at := e.At
		if at.After(now) {
			at = now
			for _, other := range written {
				if compareGenerations(other, e) > 0 && other.At.Before(at) {
					at = other.At
				}
			}
		}
		return at
	}
	slices.SortStableFunc(events, func(a, b rotation.Event) int {
		return cmp.Or(latest(a).Compare(latest(b)), compareGenerations(a, b))
	})
	return events
}

func compareGenerations(a, b rotation.Event) int {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Generation, b.Generation))
}
