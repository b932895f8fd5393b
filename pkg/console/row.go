package console

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// row is what the overview shows of a connection. Rows are compared: one that is equal to
// what a browser has is not sent again. So nothing in it says how long ago something was.
type row struct {
	Connection token.Connection
	Status     string // in words
	Tone       string // a class of the style sheet: good, info, warn, bad or off
	Detail     string // what comes next, if that is not the ordinary thing
	Who        string // the user who consented; empty: not known
	Company    string
	// CompanyName is how the operator calls the company; empty: not known.
	CompanyName string
	Generation  string // as the command writes it: 1.27; empty in a row without a token
	HasToken    bool
	Issued      moment // of the access token
	Expires     moment
	Rotated     moment
	Due         moment
	Need        need
}

// need is what only a person can do.
type need struct {
	Rank    int    // 1 is the most urgent; 0: nothing
	What    string // a sentence
	Action  string // in the form's action; empty: follow Link
	Button  string
	Link    string // within the console
	Runbook string // file name
}

// moment is a time in milliseconds, so that rows can be compared; 0: none.
type moment int64

func momentOf(t time.Time) moment {
	if t.IsZero() {
		return 0
	}
	return moment(t.UnixMilli())
}

// Time returns the time; zero: none.
func (m moment) Time() time.Time {
	if m == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(m)).UTC()
}

// shown is the access token that programs get from the secret store. While a newer one is not
// published, the record does not say how long it lives.
type shown struct {
	version         string // as in Record.Published; empty: not known
	generation      string
	issued, expires time.Time // zero: not known
}

// lags reports whether programs still get another access token than the current one.
func lags(rec rotation.Record) bool {
	return rec.Current != nil && rec.Current.VersionID != "" && rec.Published != rec.Current.VersionID
}

// shownBy finds what programs get, as far as the record and the events tell.
func shownBy(rec rotation.Record, newestFirst []rotation.Event) shown {
	if rec.Current != nil && !lags(rec) {
		return shown{rec.Published, generation(rec.Epoch, rec.Generation),
			cmp.Or(rec.Current.IssuedAt, rec.Current.SavedAt), rec.Current.ExpiresAt}
	}
	found := shown{version: rec.Published}
	if rec.Published == "" {
		return found
	}
	i := slices.IndexFunc(newestFirst, func(e rotation.Event) bool {
		return e.Kind == "published" && e.Detail == "version "+rec.Published
	})
	if i < 0 {
		return found
	}
	for _, e := range newestFirst {
		if isPair(e) && e.Epoch == newestFirst[i].Epoch && e.Generation == newestFirst[i].Generation {
			found.generation, found.issued, found.expires = generation(e.Epoch, e.Generation), e.At, e.ExpiresAt
		}
	}
	return found
}

// generation is how people read the position of a pair: what consents, imports and
// disconnections raise, and the refreshes since then.
func generation(epoch, generation int64) string { return fmt.Sprintf("%d.%d", epoch, generation) }

// isPair reports whether an event makes a pair the current one.
func isPair(e rotation.Event) bool { return e.Kind == "decided" || e.Kind == "adopted" }

// overdue is the time after which an attempt without an answer is not an ordinary one: the
// longest POST takes 20 s unless the settings say otherwise. A publish is later than usual after it.
const overdue = 30 * time.Second

const (
	needsConsent = "needs consent"
	expired      = "access token expired"
)

// describe says in words how a connection is at now, for those who read the token.
func describe(rec rotation.Record, readers shown, now time.Time) row {
	r := row{Connection: rec.Connection, Rotated: momentOf(rec.RotatedAt), Due: momentOf(rec.DueAt)}
	if p := rec.Pin; p != nil {
		r.Who, r.Company, r.CompanyName = p.Login, p.Company, p.CompanyName
		if r.Who == "" && p.ResourceOwner != "" {
			r.Who = "Procore user " + p.ResourceOwner
		}
	}
	if rec.ServiceAccount {
		r.Who = "service account"
	}
	switch cur := rec.Current; {
	case cur == nil:
	case lags(rec) && readers.version == rec.Published && !readers.expires.IsZero():
		r.HasToken, r.Generation = true, readers.generation
		r.Issued, r.Expires = momentOf(readers.issued), momentOf(readers.expires)
	case lags(rec): // nobody knows what programs get
	default:
		r.HasToken, r.Generation = true, generation(rec.Epoch, rec.Generation)
		r.Issued, r.Expires = momentOf(cmp.Or(cur.IssuedAt, cur.SavedAt)), momentOf(cur.ExpiresAt)
	}
	r.describeStatus(rec, now)
	return r
}

func (r *row) describeStatus(rec rotation.Record, now time.Time) {
	failure := rec.Failure()
	page := "/connections/" + r.Connection.String()
	lapsed := r.Expires != 0 && !now.Before(r.Expires.Time())
	switch {
	case rec.Status == rotation.Disconnected:
		r.set("disconnected", "off", "")
	case rec.Quarantined:
		r.set("quarantined", "bad", "A person must decide about a token response.")
		r.Need = need{Rank: 2, What: "tokenturn cannot use a response of the token endpoint as it is, and presents " +
			"nothing until you decide.", Button: "Decide", Link: page + "#quarantine", Runbook: "quarantine.md"}
	case rec.Status == rotation.NeedsConsent:
		r.set(needsConsent, "bad", "")
		what := "Procore no longer accepts the refresh token. " + rec.Pin.Whose() + " must allow access again."
		if rec.OnlyImported() {
			what = "Procore refuses the imported refresh token. Import the right one, or send a person a consent link."
		}
		if rec.Refusal != nil && rec.Refusal.NextAt.After(now) {
			r.Detail = "tokenturn also tries the old token again."
		}
		r.Need = need{Rank: 1, What: what, Action: "invite", Button: "Create a consent link", Runbook: "needs-consent.md"}
	case failure != nil && failure.Class == "config":
		r.set("misconfigured", "bad", "")
		r.Need = need{Rank: 3, What: sentence(failure.Detail), Action: "rotate", Button: "Try again now",
			Runbook: configRunbook(failure.Detail)}
	case rec.Status == rotation.Pending && (failure != nil || rec.ConsentAttempt != nil):
		r.set("checking the consent", "warn", "")
		if failure != nil {
			r.Detail = sentence(failure.Detail)
		}
	case rec.Status == rotation.Pending:
		r.set("waiting for consent", "info", "")
		r.Need = need{Rank: 5, What: "Nobody has allowed access yet. Send a consent link to the person who connects it.",
			Action: "invite", Button: "Create a consent link", Runbook: "connect.md"}
	case rec.Attempt != nil && now.Sub(rec.Attempt.BegunAt) < overdue:
		r.set("rotating", "info", "")
	case rec.Attempt != nil && !lapsed:
		r.set("response overdue", "warn", "It may be lost. tokenturn checks again automatically.")
	case lapsed && lags(rec):
		r.set(expired, "bad", "")
		what := "The access token that programs get has expired. A newer one is saved, and not published yet."
		if failure != nil {
			r.Detail = sentence(failure.Summary())
			what += " " + r.Detail
		}
		r.Need = need{Rank: 4, What: what, Action: "rotate", Button: "Rotate now", Runbook: "README.md"}
	case lapsed:
		r.set(expired, "bad", "")
		if failure != nil {
			r.Detail = sentence(failure.Summary())
		}
		r.Need = need{Rank: 4, What: "The access token has expired, and there is no newer one yet.", Action: "rotate",
			Button: "Rotate now", Runbook: "unknown.md"}
		if r.Detail != "" {
			r.Need.What += " " + r.Detail
		}
	case failure != nil:
		r.set("waiting to retry", "warn", sentence(failure.Summary()))
	case lags(rec) && now.Sub(rec.Current.SavedAt) >= overdue:
		r.set("publish overdue", "warn", "A new access token is saved, and programs do not get it yet.")
	case lags(rec):
		r.set("publishing", "info", "")
	default:
		r.set("active", "good", "")
	}
}

func (r *row) set(status, tone, detail string) { r.Status, r.Tone, r.Detail = status, tone, detail }

// maxDetail bounds what a row and a card say about a failure. The page of the connection says
// all of it.
const maxDetail = 240

// sentence makes a sentence of the text of a failure, and shortens it.
func sentence(text string) string {
	text = wholeSentence(text)
	if runes := []rune(text); len(runes) > maxDetail {
		return strings.TrimSpace(string(runes[:maxDetail])) + "…"
	}
	return text
}

// wholeSentence makes a sentence of the text of a failure.
func wholeSentence(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if text != "" && !strings.ContainsAny(text[len(text)-1:], ".!?") {
		text += "."
	}
	if first, _, found := strings.Cut(text, " "); found && first != "tokenturn" &&
		strings.Trim(first, "abcdefghijklmnopqrstuvwxyz") == "" {
		text = strings.ToUpper(text[:1]) + text[1:]
	}
	return text
}

// configRunbook is the runbook for a configuration error.
func configRunbook(detail string) string {
	switch {
	case strings.Contains(detail, "cannot be opened"):
		return "lost-key.md"
	case strings.Contains(detail, "app credentials"):
		return "secret-reset.md"
	}
	return "README.md"
}

// matches reports whether a row is one that the query asks for.
func (r row) matches(q query) bool {
	switch q.Status {
	case "attention":
		if r.Need.Rank == 0 {
			return false
		}
	case "active":
		if r.Tone != "good" && r.Tone != "info" || r.Status == "waiting for consent" {
			return false
		}
	case "trouble":
		if r.Tone != "warn" && r.Tone != "bad" {
			return false
		}
	case "waiting":
		if r.Status != "waiting for consent" && r.Status != "checking the consent" {
			return false
		}
	case "disconnected":
		if r.Tone != "off" {
			return false
		}
	}
	if q.Q == "" {
		return true
	}
	wanted := strings.ToLower(q.Q)
	for _, text := range []string{r.Connection.String(), r.Who, r.Company, r.CompanyName, r.Status} {
		if strings.Contains(strings.ToLower(text), wanted) {
			return true
		}
	}
	return false
}

// compare orders two rows as the query asks. Rows are different connections, so it is never 0.
func (q query) compare(a, b row) int {
	order := 0
	switch q.Sort {
	case "status":
		order = cmp.Compare(urgency(a), urgency(b))
	case "expires":
		order = compareMoments(a.Expires, b.Expires)
	case "rotated":
		order = -cmp.Compare(a.Rotated, b.Rotated)
	case "due":
		order = compareMoments(a.Due, b.Due)
	}
	return cmp.Or(order, cmp.Compare(a.Connection.String(), b.Connection.String()))
}

// compareMoments puts those without a time last.
func compareMoments(a, b moment) int {
	return cmp.Or(cmp.Compare(b2i(a == 0), b2i(b == 0)), cmp.Compare(a, b))
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// urgency is the place of a row in the order by status.
func urgency(r row) int {
	if r.Need.Rank != 0 {
		return r.Need.Rank
	}
	switch r.Tone {
	case "bad":
		return 6
	case "warn":
		return 7
	case "info":
		return 8
	case "good":
		return 9
	}
	return 10
}
