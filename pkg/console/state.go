package console

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// state is what the handler last read, and when each part of it last changed. All pages and
// streams share it. Changes are numbered, so that a page can say what it has.
type state struct {
	reading sync.Mutex // held while the ledger is read: one read at a time

	// Written under reading only.
	readAt  time.Time // when the last read began
	readErr error     // and how it ended
	version string    // of Versioned
	records []rotation.Record
	readers map[token.Connection]shown

	mu      sync.Mutex
	now     snapshot
	changed chan struct{} // closed at the next change
	streams int
	stop    context.CancelFunc // of the watcher; nil: it does not run
	hurry   chan struct{}      // makes the watcher read at once
}

// snapshot is immutable.
type snapshot struct {
	seq     uint64
	rows    []tracked // by name
	summary summary
	needs   []tracked // most urgent first
	notices []rotation.Notice
	known   bool   // the list was read at least once
	fault   string // why the list cannot be read now; the rows are the last known ones
	// the numbers of the last changes
	summarySeq, needsSeq, noticesSeq, experimentsSeq, faultSeq uint64
}

// tracked is a row with the number of its last change.
type tracked struct {
	row
	seq uint64
}

// summary counts connections.
type summary struct{ All, Good, Warn, Bad, Waiting, Off int }

func (s *state) init() {
	s.changed = make(chan struct{})
	s.hurry = make(chan struct{}, 1)
	s.now.seq = 1
}

func (s *state) get() (snapshot, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now, s.changed
}

// refresh reads the list, unless a read has begun within the last fresh, or since the call: many
// callers at once share two reads.
func (h *Handler) refresh(ctx context.Context, fresh time.Duration) (snapshot, error) {
	s := &h.state
	called := time.Now()
	s.reading.Lock()
	defer s.reading.Unlock()
	if err := ctx.Err(); err != nil {
		got, _ := s.get()
		return got, err
	}
	if !s.readAt.IsZero() && (s.readAt.After(called) || time.Since(s.readAt) < fresh) {
		got, _ := s.get()
		return got, s.readErr
	}
	began := time.Now()
	reading, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	err := h.read(reading)
	if ctx.Err() == nil { // otherwise the browser has gone, which says nothing about the store
		s.readAt, s.readErr = began, err
		h.observe(err, h.cfg.Now())
	}
	got, _ := s.get()
	return got, err
}

func (h *Handler) read(ctx context.Context) error {
	s := &h.state
	version := ""
	if versioned, can := h.cfg.Connections.(Versioned); can {
		var err error
		if version, err = versioned.ListVersion(ctx); err != nil {
			return err
		}
		if version == s.version && s.records != nil {
			return nil
		}
	}
	records, err := h.cfg.Connections.List(ctx)
	if err != nil {
		return err
	}
	if records == nil {
		records = []rotation.Record{}
	}
	s.records, s.version = records, version // a change in between is found by the next read
	var complete bool
	if s.readers, complete = h.readersOf(ctx, records, s.readers); !complete {
		s.version = ""
	}
	return nil
}

// maxLookups bounds how many histories one read of the list needs.
const maxLookups = 20

// readersOf finds what programs get of each connection. It is in the record, or is known from
// before; otherwise it is in the history. complete: there is nothing left to look up.
func (h *Handler) readersOf(ctx context.Context, records []rotation.Record, before map[token.Connection]shown) (
	readers map[token.Connection]shown, complete bool) {
	readers, complete = make(map[token.Connection]shown, len(records)), true
	lookups := 0
	for _, rec := range records {
		c := rec.Connection
		known := before[c]
		switch {
		case rec.Current == nil || rec.Published == "":
		case !lags(rec):
			readers[c] = shownBy(rec, nil)
		case known.version == rec.Published:
			readers[c] = known
		case lookups == maxLookups:
			complete = false
		default:
			lookups++
			events, err := h.cfg.Connections.History(ctx, c, eventsRead)
			if err != nil {
				complete = false
				continue
			}
			readers[c] = shownBy(rec, events)
		}
	}
	return readers, complete
}

// observe compares what is known now with the last snapshot, and wakes the streams if
// something differs.
func (h *Handler) observe(fault error, now time.Time) {
	s := &h.state
	old, _ := s.get()
	next := snapshot{seq: old.seq + 1, known: s.records != nil, summarySeq: old.summarySeq, needsSeq: old.needsSeq,
		noticesSeq: old.noticesSeq, experimentsSeq: old.experimentsSeq, faultSeq: old.faultSeq}
	different := false
	update := func(differs bool, seq *uint64) {
		if differs {
			*seq, different = next.seq, true
		}
	}
	before := make(map[token.Connection]tracked, len(old.rows))
	for _, t := range old.rows {
		before[t.Connection] = t
	}
	next.rows = make([]tracked, 0, len(s.records))
	for _, rec := range s.records {
		t := tracked{row: describe(rec, s.readers[rec.Connection], now)}
		if was, known := before[t.Connection]; known && was.row == t.row {
			t.seq = was.seq
		} else {
			update(true, &t.seq)
		}
		next.rows = append(next.rows, t)
		next.summary.add(t.row)
		if t.Need.Rank > 0 {
			next.needs = append(next.needs, t)
		}
	}
	slices.SortFunc(next.needs, func(a, b tracked) int {
		return cmp.Or(cmp.Compare(a.Need.Rank, b.Need.Rank), cmp.Compare(a.Connection.String(), b.Connection.String()))
	})
	if fault != nil {
		next.fault = sentence(fault.Error())
	}
	if next.fault != "" && next.fault != old.fault { // once, not every second
		h.cfg.Logger.Warn("the console cannot list the connections", "error", fault)
	}
	if h.cfg.Notices != nil {
		next.notices = h.cfg.Notices()
	}
	update(len(next.rows) != len(old.rows), &next.summarySeq)
	update(next.summary != old.summary, &next.summarySeq)
	if !slices.EqualFunc(next.needs, old.needs, func(a, b tracked) bool { return a.row == b.row }) {
		update(true, &next.needsSeq)
		update(len(next.notices) > 0, &next.noticesSeq) // those about them have buttons
	}
	update(!sameNotices(next.notices, old.notices), &next.noticesSeq)
	update(next.fault != old.fault, &next.faultSeq)
	if different {
		s.publish(next)
	}
}

func (s *state) publish(next snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = next
	close(s.changed)
	s.changed = make(chan struct{})
}

// experimentsChanged wakes the streams because the panel has changed.
func (h *Handler) experimentsChanged() {
	h.state.reading.Lock() // observe builds on the last snapshot
	defer h.state.reading.Unlock()
	next, _ := h.state.get()
	next.seq++
	next.experimentsSeq = next.seq
	h.state.publish(next)
}

// sameNotices compares two lists that only ever grow at the front.
func sameNotices(a, b []rotation.Notice) bool {
	return len(a) == len(b) && (len(a) == 0 || a[0].At.Equal(b[0].At) && a[0].Kind == b[0].Kind &&
		a[0].Summary == b[0].Summary)
}

func (s *summary) add(r row) {
	s.All++
	switch {
	case r.Tone == "off":
		s.Off++
	case r.Tone == "bad":
		s.Bad++
	case r.Tone == "warn":
		s.Warn++
	case r.Status == "waiting for consent":
		s.Waiting++
	default:
		s.Good++
	}
}

// enter counts a stream and starts the watcher with the first one. full: there are too many.
func (h *Handler) enter() (leave func(), full bool) {
	s := &h.state
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams >= h.cfg.MaxStreams {
		return nil, true
	}
	s.streams++
	if s.stop == nil {
		ctx, cancel := context.WithCancel(context.Background())
		s.stop = cancel
		go h.watch(ctx)
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.streams--; s.streams == 0 {
			s.stop()
			s.stop = nil
		}
	}, false
}

// watch reads the list once per interval, until the last stream has left.
func (h *Handler) watch(ctx context.Context) {
	ticker := time.NewTicker(h.cfg.Interval)
	defer ticker.Stop()
	var changed <-chan struct{}
	if h.cfg.Experiments != nil {
		changed = h.cfg.Experiments.Changed()
	}
	for {
		fresh := h.cfg.Interval / 2
		select {
		case <-ctx.Done():
			return
		case <-h.over:
			return
		case <-changed:
			changed = h.cfg.Experiments.Changed() // before the state is read, so that no change is missed
			h.experimentsChanged()
			fresh = 0
		case <-h.state.hurry:
			fresh = 0
		case <-ticker.C:
		}
		_, _ = h.refresh(ctx, fresh) // it logs its errors
	}
}

// readTimeout bounds one read of the ledger.
const readTimeout = 15 * time.Second

// hurry lets the streams see at once what an action has done.
func (h *Handler) hurry() {
	select {
	case h.state.hurry <- struct{}{}:
	default:
	}
}
