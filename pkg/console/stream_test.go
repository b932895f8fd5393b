package console_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/console"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// update is what the script reads of an event.
type update struct {
	Seq    uint64
	Reload bool
	Stale  bool
	Order  []string
	Rows   map[string]string
	Parts  map[string]string
}

// opened is an open stream.
type opened struct {
	lines  *bufio.Scanner
	status int
}

func (s *site) stream(path string) *opened {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), "GET", s.server.URL+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	browser := &http.Client{Jar: s.browser.Jar, Transport: &http.Transport{}} // without a time limit
	got, err := browser.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { got.Body.Close() })
	lines := bufio.NewScanner(got.Body)
	lines.Buffer(nil, 1<<20)
	return &opened{lines, got.StatusCode}
}

// next returns the data of the next event.
func (o *opened) next(t testing.TB) string {
	t.Helper()
	for o.lines.Scan() {
		if data, found := strings.CutPrefix(o.lines.Text(), "data: "); found {
			return data
		}
	}
	t.Fatalf("the stream has ended: %v", o.lines.Err())
	return ""
}

func (o *opened) update(t testing.TB) (u update) {
	t.Helper()
	data := o.next(t)
	if err := json.Unmarshal([]byte(data), &u); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	if len(data) > 20_000 {
		t.Errorf("an update of %d bytes", len(data))
	}
	return u
}

// until reads updates until one is as wanted.
func (o *opened) until(t testing.TB, wanted func(update) bool) update {
	t.Helper()
	for {
		if u := o.update(t); wanted(u) {
			return u
		}
	}
}

var dataForm = regexp.MustCompile(`data-boot="([A-Z0-9]+)" data-seq="([0-9]+)"`)

func (s *site) boot() string { return dataForm.FindStringSubmatch(s.get("/").body)[1] }

// follow opens the stream of the page that was just loaded.
func (s *site) follow(query string) *opened {
	s.t.Helper()
	found := dataForm.FindStringSubmatch(s.get("/?" + query).body)
	if found == nil {
		s.t.Fatal("the page does not say what it has")
	}
	return s.stream(fmt.Sprintf("/events?%s&boot=%s&seq=%s", query, found[1], found[2]))
}

func TestTheStreamHasWhatChanged(t *testing.T) {
	s := open(t, nil)
	for _, c := range []token.Connection{acme, bolt, core} {
		s.put(active(c, 1))
	}
	o := s.follow("")
	if first := o.update(t); first.Rows != nil || first.Parts != nil || len(first.Order) != 3 {
		t.Errorf("a page that was just loaded gets %+v", first)
	}
	s.put(active(bolt, 2))
	u := o.update(t)
	if len(u.Rows) != 1 || !strings.Contains(u.Rows["sandbox/bolt"], "generation 1.2") || u.Order != nil ||
		u.Parts != nil {
		t.Errorf("one rotation: %+v", u)
	}
	rec := active(acme, 1)
	rec.Status = rotation.NeedsConsent
	s.put(rec)
	u = o.update(t)
	if len(u.Rows) != 1 || !strings.Contains(u.Parts["attention"], "/connections/sandbox/acme/invite") ||
		!strings.Contains(u.Parts["summary"], "1 in trouble") {
		t.Errorf("one that needs a consent: %+v", u)
	}
	s.notify(rotation.Notice{Kind: rotation.NoticeRecovered, Connection: acme, Summary: "works again", At: time.Now()})
	if u = o.update(t); !strings.Contains(u.Parts["notices"], "works again") || u.Rows != nil {
		t.Errorf("a notice: %+v", u)
	}
	s.put(active(fine, 1))
	u = o.update(t)
	if strings.Join(u.Order, " ") != "sandbox/acme sandbox/bolt sandbox/core sandbox/fine" || len(u.Rows) != 1 ||
		u.Rows["sandbox/fine"] == "" {
		t.Errorf("a new connection: %+v", u)
	}
}

func TestTheStreamFollowsTheQuery(t *testing.T) {
	s := open(t, nil)
	for _, c := range []token.Connection{acme, bolt, core} {
		s.put(active(c, 1))
	}
	o := s.follow("status=attention")
	if u := o.update(t); len(u.Order) != 0 {
		t.Errorf("nothing needs a person: %+v", u)
	}
	rec := active(core, 1)
	rec.Status = rotation.NeedsConsent
	s.put(rec)
	if u := o.update(t); len(u.Order) != 1 || u.Rows["sandbox/core"] == "" {
		t.Errorf("one needs a person: %+v", u)
	}
	s.put(active(core, 2))
	if u := o.until(t, func(u update) bool { return u.Order != nil }); len(u.Order) != 0 || u.Rows != nil {
		t.Errorf("no longer: %+v", u)
	}
	s.put(rec) // a row that was there before comes again
	if u := o.until(t, func(u update) bool { return u.Order != nil }); len(u.Order) != 1 || u.Rows["sandbox/core"] == "" {
		t.Errorf("again: %+v", u)
	}
}

func TestThePageOfOneConnectionFollowsChanges(t *testing.T) {
	s := open(t, nil)
	s.put(active(acme, 1))
	s.put(active(bolt, 1))
	page := s.get("/")
	found := dataForm.FindStringSubmatch(page.body)
	o := s.stream("/events?connection=sandbox/acme&boot=" + found[1] + "&seq=" + found[2])
	s.put(active(bolt, 2))
	s.put(active(acme, 2))
	if u := o.update(t); !u.Stale || u.Rows != nil || u.Order != nil {
		t.Errorf("%+v", u)
	}
	if got := s.get("/events?connection=acme"); got.status != http.StatusBadRequest {
		t.Errorf("a malformed name: %d", got.status)
	}
}

func TestAPageOfAnEarlierProcessIsLoadedAgain(t *testing.T) {
	s := open(t, nil)
	if u := s.stream("/events?boot=EARLIER&seq=7").update(t); !u.Reload {
		t.Errorf("%+v", u)
	}
}

// TestManyStreams: the list is read once for all of them, and there is a most.
func TestManyStreams(t *testing.T) {
	counting := &counting{}
	s := open(t, func(cfg *console.Config) {
		counting.Connections = cfg.Connections
		cfg.Connections, cfg.Interval = counting, time.Hour // so that only pages and actions read
	})
	s.put(active(acme, 1))
	boot := s.boot()
	var open []*opened
	refused := 0
	for range 200 {
		o := s.stream("/events?boot=" + boot + "&seq=0")
		switch o.status {
		case http.StatusOK:
			open = append(open, o)
		case http.StatusServiceUnavailable:
			refused++
		default:
			t.Fatalf("status %d", o.status)
		}
	}
	if len(open) != 100 || refused != 100 {
		t.Fatalf("%d streams are open, %d were refused", len(open), refused)
	}
	for _, o := range open {
		o.update(t)
	}
	before := counting.reads()
	s.put(active(acme, 2))
	s.post("/connections/sandbox/acme/rotate") // what follows an action is shown at once
	for _, o := range open {
		if u := o.update(t); !strings.Contains(u.Rows["sandbox/acme"], "generation 1.2") {
			t.Fatalf("%+v", u)
		}
	}
	if reads := counting.reads() - before; reads > 3 {
		t.Errorf("%d reads of the list for %d streams", reads, len(open))
	}
	if got := s.get("/"); got.status != http.StatusOK {
		t.Errorf("a page meanwhile: %d", got.status)
	}
}

// counting counts the reads of the list.
type counting struct {
	console.Connections
	mu sync.Mutex
	n  int
}

func (c *counting) List(ctx context.Context) ([]rotation.Record, error) {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()
	return c.Connections.List(ctx)
}

func (c *counting) reads() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// TestASlowReaderIsDropped: a browser that reads nothing costs one update, and loses its stream.
func TestASlowReaderIsDropped(t *testing.T) {
	s := prepare(t, nil)
	s.handler.SetPatience(50 * time.Millisecond)
	s.server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		_ = c.(*net.TCPConn).SetWriteBuffer(4096)
		return ctx
	}
	s.start()
	for i := range 20 {
		s.put(active(token.Connection{Environment: "sandbox", Name: fmt.Sprint("c", i)}, 1))
	}
	boot := s.boot()
	connection, err := net.Dial("tcp", s.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if err := connection.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(connection, "GET /events?boot=%s&seq=0 HTTP/1.1\r\nHost: %s\r\n\r\n", boot, s.server.Listener.Addr())
	for generation := int64(2); !strings.Contains(s.log.String(), "did not accept an update"); generation++ {
		for i := range 20 { // every update has some rows, until the buffers of both ends are full
			s.put(active(token.Connection{Environment: "sandbox", Name: fmt.Sprint("c", i)}, generation))
		}
	}
}

func TestCloseEndsTheStreams(t *testing.T) {
	s := open(t, nil)
	o := s.stream("/events?boot=" + s.boot() + "&seq=0")
	o.update(t)
	s.handler.Close()
	for o.lines.Scan() {
	}
	if err := o.lines.Err(); err != nil {
		t.Error(err)
	}
	s.handler.Close() // twice is once
}

// TestAThousandConnections: no update is larger than 20 kB, even if all of them change at once.
func TestAThousandConnections(t *testing.T) {
	s := open(t, func(cfg *console.Config) { cfg.Interval = 100 * time.Millisecond })
	s.thousand()
	page := s.get("/")
	mustContain(t, page.body, "1 to 100 of 1000", "page=2")
	if len(page.body) > 200_000 {
		t.Errorf("the page has %d bytes", len(page.body))
	}
	t.Logf("the first page has %d bytes", len(page.body))
	o := s.follow("")
	o.update(t)
	for i := range 1000 {
		rec := active(token.Connection{Environment: "production", Name: fmt.Sprintf("northwind-general-%04d", i)}, 2000)
		rec.Pin.Login = fmt.Sprintf("alexandra.henriksen-%04d@northwind-construction.example", i)
		rec.Status = rotation.NeedsConsent
		s.put(rec)
	}
	has, largest := map[string]bool{}, 0
	for len(has) < 100 {
		data := o.next(t)
		largest = max(largest, len(data))
		var u update
		if err := json.Unmarshal([]byte(data), &u); err != nil {
			t.Fatal(err)
		}
		for name, row := range u.Rows {
			has[name] = strings.Contains(row, "needs consent")
		}
	}
	if largest > 20_000 {
		t.Errorf("the largest update has %d bytes", largest)
	}
	t.Logf("the largest update has %d bytes", largest)
}
