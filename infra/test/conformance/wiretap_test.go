//go:build conformance

package conformance

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// wiretap stands between one installation's programs and both peers. It notes
// every call and can cut one off before it is passed on, or after it was
// carried out but before it is answered.
type wiretap struct {
	awsURL, loginURL string

	mu    sync.Mutex
	calls []call
	armed *cut
	fates func(call) fate // nil: all calls are passed on and answered
}

// fate is what the wiretap does to a call.
type fate int

const (
	passed     fate = iota
	withheld        // the peer does not see it, and the program gets no answer
	unanswered      // the peer carries it out, and the program gets no answer
)

// call is one request of a program.
type call struct {
	Peer    string // "aws" or "login"
	Name    string // "PutItem", "POST /oauth/token"
	Who     string // access key of an AWS call
	Service string // of an AWS call, as its signature names it
	Body    []byte
	Fate    fate
	Began   time.Time // before the peer saw it
	Ended   time.Time // after the peer answered; zero if it did not
	Reached bool      // the peer carried it out
	Status  int       // of the peer's answer
}

// cut strikes at the at-th call after it was armed.
type cut struct {
	at    int
	after bool   // carried out, but not answered
	do    func() // runs at that moment
	seen  int
	hit   call // what it struck, if it did
}

func newWiretap(t *testing.T, aws, login string) *wiretap {
	w := &wiretap{}
	w.awsURL, w.loginURL = w.listen(t, "aws", aws), w.listen(t, "login", login)
	return w
}

func (w *wiretap) listen(t *testing.T, peer, target string) string {
	base, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 32}
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		w.pass(transport, peer, base, out, in)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		transport.CloseIdleConnections()
	})
	return server.URL
}

var credential = regexp.MustCompile(`Credential=([^/]+)/\d+/[^/]+/([^/]+)/`)

// pass hands one request on. The Host header goes with it: Doorkeeper builds
// its redirects from it.
func (w *wiretap) pass(transport http.RoundTripper, peer string, base *url.URL, out http.ResponseWriter,
	in *http.Request) {
	body, err := io.ReadAll(in.Body)
	if err != nil {
		return // the program is gone
	}
	c := call{Peer: peer, Name: nameOf(in, body), Body: body, Began: time.Now()}
	if m := credential.FindStringSubmatch(in.Header.Get("Authorization")); m != nil {
		c.Who, c.Service = m[1], m[2]
		record(c)
	}
	index, strike, fate := w.note(c)
	if strike != nil && !strike.after {
		strike.do()
	}
	if fate == withheld || strike != nil && !strike.after {
		panic(http.ErrAbortHandler)
	}
	request := in.Clone(in.Context())
	request.URL.Scheme, request.URL.Host = base.Scheme, base.Host
	request.Host, request.RequestURI = in.Host, ""
	request.Body = io.NopCloser(bytes.NewReader(body))
	request.ContentLength = int64(len(body))
	request.TransferEncoding = nil
	answer, err := transport.RoundTrip(request)
	if err != nil {
		panic(http.ErrAbortHandler) // the peer, or moto on request, hung up: so do we
	}
	content, err := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	w.reached(index, answer.StatusCode)
	if strike != nil {
		strike.do()
	}
	if strike != nil || fate == unanswered || err != nil {
		panic(http.ErrAbortHandler)
	}
	for name, values := range answer.Header {
		out.Header()[name] = values
	}
	out.WriteHeader(answer.StatusCode)
	_, _ = out.Write(content)
}

// nameOf says what a request asks for.
func nameOf(r *http.Request, body []byte) string {
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		return target[strings.LastIndex(target, ".")+1:]
	}
	if form, err := url.ParseQuery(string(body)); err == nil && form.Get("Action") != "" {
		return form.Get("Action")
	}
	return r.Method + " " + r.URL.Path
}

func (w *wiretap) note(c call) (index int, strike *cut, fate fate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fates != nil {
		c.Fate = w.fates(c)
	}
	w.calls = append(w.calls, c)
	if a := w.armed; a != nil {
		if a.seen++; a.seen == a.at {
			a.hit = c
			strike = a
		}
	}
	return len(w.calls) - 1, strike, c.Fate
}

// block cuts off every call that fits, before it is passed on, until unblock.
// fits sees all calls, one at a time.
func (w *wiretap) block(fits func(call) bool) (unblock func()) {
	return w.decide(func(c call) fate {
		if fits(c) {
			return withheld
		}
		return passed
	})
}

// decide gives every call its fate until undecide. fates sees all calls, one at a time.
func (w *wiretap) decide(fates func(call) fate) (undecide func()) {
	set := func(f func(call) fate) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.fates = f
	}
	set(fates)
	return func() { set(nil) }
}

func (w *wiretap) reached(index, status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := &w.calls[index]
	c.Reached, c.Status, c.Ended = true, status, time.Now()
}

// arm sets a cut and returns a function that takes it away again and says what
// it struck: the zero call if nothing. At 0 it only counts.
func (w *wiretap) arm(at int, after bool, do func()) (disarm func() (hit call, seen int)) {
	c := &cut{at: at, after: after, do: do}
	w.mu.Lock()
	w.armed = c
	w.mu.Unlock()
	return func() (call, int) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.armed = nil
		return c.hit, c.seen
	}
}

// since returns the calls from index n on, and the index to go on from.
func (w *wiretap) since(n int) ([]call, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]call(nil), w.calls[n:]...), len(w.calls)
}

// presentations counts, per refresh token and per code, how often Doorkeeper
// was shown it.
func (w *wiretap) presentations() map[string]int {
	counts := map[string]int{}
	calls, _ := w.since(0)
	for _, c := range calls {
		if c.Name != "POST /oauth/token" || !c.Reached {
			continue
		}
		var grant struct {
			RefreshToken string `json:"refresh_token"`
			Code         string `json:"code"`
		}
		_ = json.Unmarshal(c.Body, &grant)
		counts[grant.RefreshToken+grant.Code]++
	}
	return counts
}
