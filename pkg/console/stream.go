package console

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

const (
	// maxUpdate bounds one update. What does not fit follows in the next ones.
	maxUpdate = 18 << 10
	// pause is the time between two updates that belong together.
	pause = 200 * time.Millisecond
	// patience is how long a browser may take to accept an update before its stream ends. Nothing
	// is queued for it meanwhile: the next update has what is new by then.
	patience = 10 * time.Second
	// heartbeat is the longest time without a byte, so that a browser that has gone is noticed.
	heartbeat = 20 * time.Second
)

// update is what an event of the stream contains. The script puts it in the page.
type update struct {
	Seq uint64 `json:"seq"`
	// Reload: the page is of an earlier process.
	Reload bool `json:"reload,omitempty"`
	// Stale: the connection of this page has changed.
	Stale bool `json:"stale,omitempty"`
	// Order are the names of the rows of the page, if they may have changed.
	Order *[]string `json:"order,omitempty"`
	// Rows are the HTML of changed rows, by name.
	Rows map[string]string `json:"rows,omitempty"`
	// Parts are the HTML of other changed parts, by id.
	Parts map[string]string `json:"parts,omitempty"`
}

// stream is one open stream. It remembers what its browser has.
type stream struct {
	h     *Handler
	query query
	of    token.Connection // of the page of one connection; zero: the overview
	seq   uint64           // the browser has every change of a row up to this one ...
	sent  map[string]uint64
	parts map[string]uint64
	has   map[string]bool // the rows in it; nil: those of the page that it loaded
	order []string
}

func (h *Handler) events(w http.ResponseWriter, r *http.Request) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || len(r.URL.RawQuery) > maxQuery {
		h.fail(w, r, http.StatusBadRequest, "The query cannot be read.")
		return
	}
	s := &stream{h: h, query: parseQuery(r.URL.RawQuery), sent: map[string]uint64{}, parts: map[string]uint64{}}
	if name := values.Get("connection"); name != "" {
		if s.of, err = token.ParseConnection(name); err != nil {
			h.fail(w, r, http.StatusBadRequest, "The query names no connection.")
			return
		}
	}
	s.seq, _ = strconv.ParseUint(values.Get("seq"), 10, 64)
	leave, full := h.enter()
	if full {
		w.Header().Set("Retry-After", "60")
		h.fail(w, r, http.StatusServiceUnavailable, "Too many pages are kept up to date. Reload this one when you need it.")
		return
	}
	defer leave()
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // that of the server would end the request
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy in front must pass on each event at once
	if err := s.run(w, r, control, values.Get("boot") != h.boot); err != nil {
		h.cfg.Logger.DebugContext(r.Context(), "a browser did not accept an update in time", "error", err)
	}
}

func (s *stream) run(w http.ResponseWriter, r *http.Request, control *http.ResponseController, strange bool) error {
	send := func(data []byte) error {
		err := control.SetWriteDeadline(time.Now().Add(s.h.patience))
		if err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
		return control.Flush()
	}
	if strange {
		return send(event(update{Reload: true}))
	}
	if err := send([]byte("retry: 2000\n\n")); err != nil {
		return err
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for s.h.guard.admits(r) { // until the session ends
		now, changed := s.h.state.get()
		next, more := s.next(now)
		if next != nil {
			if err := send(event(*next)); err != nil {
				return err
			}
		}
		var again <-chan time.Time
		if more {
			again = time.After(pause)
			changed = nil
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-s.h.over:
			return nil
		case <-again:
		case <-changed:
		case <-beat.C:
			if err := send([]byte(":\n\n")); err != nil {
				return err
			}
		}
	}
	return nil
}

// next is the next update for this browser; nil: it has everything. more: this update does not
// contain all that is new.
func (s *stream) next(now snapshot) (next *update, more bool) {
	if !s.of.IsZero() {
		return s.nextOfOne(now), false
	}
	u := update{Seq: now.seq}
	size := 0
	add := func(to *map[string]string, name, html string) bool {
		if size += len(name) + len(html) + 16; size > maxUpdate && (u.Rows != nil || u.Parts != nil || u.Order != nil) {
			more = true
			return false
		}
		if *to == nil {
			*to = map[string]string{}
		}
		(*to)[name] = html
		return true
	}
	chosen := s.query.choose(now.rows)
	order := make([]string, len(chosen.Rows))
	for i, t := range chosen.Rows {
		order[i] = t.Connection.String()
		size += len(order[i]) + 3
	}
	if s.order != nil && slices.Equal(order, s.order) {
		size = 0
	} else {
		u.Order = &order
	}
	view := s.h.overviewOf(now, chosen)
	for _, part := range s.h.parts(now) {
		if part.seq <= max(s.seq, s.parts[part.name]) && !(part.name == "pages" && u.Order != nil && s.order != nil) {
			continue
		}
		if !add(&u.Parts, part.name, s.h.render(part.name, view)) {
			break
		}
		s.parts[part.name] = part.seq
	}
	for _, t := range chosen.Rows {
		name := t.Connection.String()
		if known := s.has == nil || s.has[name] || s.sent[name] > 0; known && t.seq <= max(s.seq, s.sent[name]) {
			continue
		}
		if more || !add(&u.Rows, name, s.h.render("row", rowView{t.row, view.Now})) {
			more = true
			break
		}
		s.sent[name] = t.seq
	}
	s.order = order
	if !more { // the browser has everything
		s.seq, s.has = now.seq, map[string]bool{}
		for _, name := range order {
			s.has[name] = true
		}
		clear(s.sent)
	}
	if u.Rows == nil && u.Parts == nil && u.Order == nil {
		return nil, more
	}
	return &u, more
}

// nextOfOne is next for the page of one connection. It loads itself again.
func (s *stream) nextOfOne(now snapshot) *update {
	i, found := slices.BinarySearchFunc(now.rows, s.of.String(), func(t tracked, name string) int {
		return cmp.Compare(t.Connection.String(), name)
	})
	stale := found && now.rows[i].seq > s.seq || max(now.noticesSeq, now.faultSeq) > s.seq
	s.seq = now.seq
	if !stale {
		return nil
	}
	return &update{Seq: now.seq, Stale: true}
}

// event is an update in the form of the HTML standard, section 9.2.
func event(u update) []byte {
	var out bytes.Buffer
	out.WriteString("data: ")
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false) // half the size; it is no script and no page
	if err := encoder.Encode(u); err != nil {
		panic(err) // strings and numbers
	}
	out.WriteByte('\n') // Encode ends the line, and an empty one ends the event
	return out.Bytes()
}
