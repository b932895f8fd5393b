package procoretest

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
	"unicode/utf16"
)

// Answer alters one answer of the token endpoint. The zero Answer leaves it unchanged.
type Answer struct {
	// Unreceived keeps the request from taking effect, as if it had been lost
	// on the way or stopped at a gateway. It is counted as a presentation.
	Unreceived bool
	// Release, if not nil, delays the answer until the channel is closed; Delay by
	// so much real time. The request has taken effect by then. Both end when
	// the client goes away.
	Release <-chan struct{}
	Delay   time.Duration
	// Status, ContentType and Body, where set, replace the answer's own. Body gets
	// the true body; Encoding (Content-Encoding), Location and Wait (Retry-After and
	// X-Rate-Limit-Reset) are headers.
	Status      int
	ContentType string
	Body        func(sound string) string
	Encoding    string
	Location    string
	Wait        time.Duration
	// Cut ends the connection: before anything is answered if CutAfter is 0,
	// else after so many bytes of the body.
	Cut      bool
	CutAfter int
}

// Lost takes effect, then cuts the connection instead of answering.
func Lost() Answer { return Answer{Cut: true} }

// LostBefore cuts the connection before the request takes effect.
func LostBefore() Answer { return Answer{Unreceived: true, Cut: true} }

// Slow takes effect, then waits before it answers.
func Slow(delay time.Duration) Answer { return Answer{Delay: delay} }

// Blocked takes effect, then answers once release is closed.
func Blocked(release <-chan struct{}) Answer { return Answer{Release: release} }

// Truncated takes effect, states the length of the whole body and sends n bytes of it, n > 0.
func Truncated(n int) Answer { return Answer{Cut: true, CutAfter: n} }

// Rewritten takes effect and changes the body.
func Rewritten(body func(sound string) string) Answer { return Answer{Body: body} }

// Gzipped takes effect and answers in gzip, whatever the client accepts.
func Gzipped() Answer { return Answer{Body: gzipped, Encoding: "gzip"} }

// InUTF16 takes effect and answers in UTF-16 with a byte order mark.
func InUTF16() Answer {
	return Answer{Body: inUTF16, ContentType: "application/json; charset=utf-16"}
}

// Unreadable takes effect and answers with bytes that no common encoding
// explains, as brotli is for a client without brotli. Only Unveil
// reads them.
func Unreadable() Answer { return Answer{Body: Unveil, Encoding: "br"} }

// Unveil gives the true body of an Unreadable answer, and the reverse.
func Unveil(body string) string {
	veiled := []byte(body)
	stream := rand.NewChaCha8([32]byte{})
	for i := range veiled {
		veiled[i] ^= byte(stream.Uint64())
	}
	return string(veiled)
}

func gzipped(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(text)) // into memory
	_ = w.Close()
	return b.String()
}

func inUTF16(text string) string {
	b := []byte{0xff, 0xfe}
	for _, unit := range utf16.Encode([]rune(text)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return string(b)
}

// Refused answers invalid_grant without effect: the token is as good as before.
func Refused() Answer {
	return Answer{Unreceived: true, Status: http.StatusBadRequest, ContentType: "application/json; charset=utf-8",
		Body: fixed(`{"error":"invalid_grant","error_description":"` + invalidGrant.description + `"}`)}
}

// Unavailable answers with a status such as 500 or 503 and no effect.
func Unavailable(status int) Answer {
	return Answer{Unreceived: true, Status: status, ContentType: "application/json",
		Body: fixed(`{"error":"server_error"}`)}
}

// HTML answers with a page and any status, without effect, as gateways and
// captive portals do and, with 403, web application firewalls.
func HTML(status int) Answer {
	return Answer{Unreceived: true, Status: status, ContentType: "text/html; charset=utf-8",
		Body: fixed("<!DOCTYPE html><html><head><title>A gateway</title></head><body><h1>This is a page of a " +
			"gateway.</h1></body></html>")}
}

// Text answers with plain text and any status, without effect, such as 415.
func Text(status int) Answer {
	return Answer{Unreceived: true, Status: status, ContentType: "text/plain; charset=utf-8",
		Body: fixed(http.StatusText(status))}
}

// TooManyRequests answers 429 without effect and asks to wait, in both of Procore's ways.
func TooManyRequests(wait time.Duration) Answer {
	return Answer{Unreceived: true, Status: http.StatusTooManyRequests, Wait: wait, ContentType: "application/json",
		Body: fixed(`{"errors":"Too many requests"}`)}
}

// Redirect answers 307, which asks the client to send the same body elsewhere, without effect.
func Redirect(location string) Answer {
	return Answer{Unreceived: true, Status: http.StatusTemporaryRedirect, ContentType: "text/html", Location: location,
		Body: fixed("")}
}

// Found answers 302, which sends a browser elsewhere, without effect.
func Found(location string) Answer {
	return Answer{Unreceived: true, Status: http.StatusFound, ContentType: "text/html", Location: location,
		Body: fixed("")}
}

func fixed(body string) func(string) string { return func(string) string { return body } }

// Script sets an Answer for each of the next answers of the token endpoint, after
// those of earlier calls that are still unused.
func (h *Handler) Script(answers ...Answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.script = append(h.script, answers...)
}

func (h *Handler) nextAnswer() Answer {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.script) == 0 {
		return Answer{}
	}
	next := h.script[0]
	h.script = h.script[1:]
	return next
}

// send writes sound as the script alters it.
func (a Answer) send(w http.ResponseWriter, r *http.Request, sound response, now time.Time) {
	if !a.wait(r) {
		return
	}
	if a.Cut && a.CutAfter == 0 {
		panic(http.ErrAbortHandler) // cuts the connection without a log line
	}
	a.apply(w.Header(), &sound, now)
	if !a.Cut {
		sound.write(w)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(sound.body)))
	sound.body = sound.body[:min(a.CutAfter, len(sound.body))]
	sound.write(w)
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// wait reports whether the client is still there.
func (a Answer) wait(r *http.Request) bool {
	if a.Release != nil {
		select {
		case <-a.Release:
		case <-r.Context().Done():
			return false
		}
	}
	if a.Delay > 0 {
		select {
		case <-time.After(a.Delay):
		case <-r.Context().Done():
			return false
		}
	}
	return true
}

func (a Answer) apply(header http.Header, sound *response, now time.Time) {
	if a.Status != 0 {
		sound.status = a.Status
	}
	if sound.status == 0 { // an unreceived request for which the script has no status
		sound.status = http.StatusBadGateway
	}
	if a.ContentType != "" {
		sound.contentType = a.ContentType
	}
	if a.Body != nil {
		sound.body = a.Body(sound.body)
	}
	if a.Encoding != "" {
		header.Set("Content-Encoding", a.Encoding)
	}
	if a.Location != "" {
		header.Set("Location", a.Location)
	}
	if a.Wait > 0 {
		header.Set("Retry-After", strconv.Itoa(int(a.Wait/time.Second)))
		header.Set("X-Rate-Limit-Limit", "25")
		header.Set("X-Rate-Limit-Remaining", "0")
		header.Set("X-Rate-Limit-Reset", strconv.FormatInt(now.Add(a.Wait).Unix(), 10))
	}
}
