package console

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// query is what the address of the overview asks for. The zero query is the first page of
// all connections by name.
type query struct {
	Q      string // part of a name, user, company or status
	Status string // one of the values of statuses
	Sort   string // one of the values of sorts
	Page   int    // from 1
}

// choice is a value of a query and what people call it.
type choice struct{ Value, Text string }

var (
	statuses = []choice{{"", "All"}, {"attention", "Needs a person"}, {"trouble", "In trouble"}, {"active", "Active"},
		{"waiting", "Waiting for consent"}, {"disconnected", "Disconnected"}}
	sorts = []choice{{"", "Name"}, {"status", "Most urgent first"}, {"expires", "Next to expire"},
		{"rotated", "Last rotated"}, {"due", "Next rotation"}}
)

const (
	// rowsPerPage bounds the first page, and what a stream may have to send.
	rowsPerPage = 100
	maxSearch   = 100 // characters
	maxQuery    = 2048
)

// parseQuery reads a query. What it does not know, it leaves out.
func parseQuery(raw string) (q query) {
	q.Page = 1
	if len(raw) > maxQuery {
		return q
	}
	values, _ := url.ParseQuery(raw)
	if text := strings.TrimSpace(values.Get("q")); utf8.ValidString(text) {
		text = strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return -1
			}
			return r
		}, text)
		runes := []rune(text)
		q.Q = strings.TrimSpace(string(runes[:min(len(runes), maxSearch)]))
	}
	q.Status = oneOf(statuses, values.Get("status"))
	q.Sort = oneOf(sorts, values.Get("sort"))
	if page, err := strconv.Atoi(values.Get("page")); err == nil && page > 1 && page <= 1_000_000 {
		q.Page = page
	}
	return q
}

func oneOf(choices []choice, value string) string {
	if slices.ContainsFunc(choices, func(c choice) bool { return c.Value == value }) {
		return value
	}
	return ""
}

// String is the query in its shortest form.
func (q query) String() string {
	values := url.Values{}
	set := func(name, value string) {
		if value != "" {
			values.Set(name, value)
		}
	}
	set("q", q.Q)
	set("status", q.Status)
	set("sort", q.Sort)
	if q.Page > 1 {
		values.Set("page", strconv.Itoa(q.Page))
	}
	return values.Encode()
}

// address is the address of the overview with this query.
func (q query) address() string {
	if text := q.String(); text != "" {
		return "/?" + text
	}
	return "/"
}

// list is the part of all rows that one page shows.
type list struct {
	Rows  []tracked
	Total int // matching rows on all pages
	From  int // number of the first row shown, from 1
	Query query
}

func (l list) To() int      { return l.From + len(l.Rows) - 1 }
func (l list) Before() bool { return l.From > 1 }
func (l list) After() bool  { return l.To() < l.Total }

// Previous and Next are the addresses of the neighboring pages.
func (l list) Previous() string { return l.Query.turn(-1) }
func (l list) Next() string     { return l.Query.turn(1) }

func (q query) turn(by int) string {
	q.Page += by
	return q.address()
}

// choose returns the rows that the query asks for.
func (q query) choose(all []tracked) list {
	var found []tracked
	for _, t := range all {
		if t.row.matches(q) {
			found = append(found, t)
		}
	}
	if q.Sort != "" {
		slices.SortFunc(found, func(a, b tracked) int { return q.compare(a.row, b.row) })
	}
	l := list{Total: len(found), From: 1, Query: q}
	first := min((q.Page-1)*rowsPerPage, len(found))
	if first == len(found) { // beyond the end, such as after a search on a later page
		first, l.Query.Page = 0, 1
	}
	l.From = first + 1
	l.Rows = found[first:min(first+rowsPerPage, len(found))]
	return l
}
