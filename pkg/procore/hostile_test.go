package procore

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// hostile is one odd answer of the token endpoint: the bytes written to the
// connection after the request, and the exact result.
type hostile struct {
	name   string
	sent   func(net.Conn)
	class  rotation.Class
	detail string
	// Of a captured answer: the verdict on its body, and why.
	verdict rotation.Verdict
	reason  string
}

// bytesOf writes a text.
func bytesOf(text string) func(net.Conn) {
	return func(conn net.Conn) { _, _ = io.WriteString(conn, text) }
}

// answer is a whole HTTP answer.
func answer(status int, body string, header ...string) func(net.Conn) {
	lines := append([]string{fmt.Sprintf("HTTP/1.1 %d %s", status, http.StatusText(status))}, header...)
	return bytesOf(strings.Join(lines, "\r\n") + fmt.Sprintf("\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
}

// but is the documented answer with one change.
func but(old, new string) func(net.Conn) { return answer(200, strings.Replace(whole, old, new, 1)) }

// slowly writes a text a byte at a time, over about so long.
func slowly(text string, over time.Duration) func(net.Conn) {
	return func(conn net.Conn) {
		began := time.Now()
		for i := range len(text) {
			if _, err := conn.Write([]byte{text[i]}); err != nil {
				return
			}
			// catches up after a pause that lasted too long
			time.Sleep(time.Until(began.Add(over * time.Duration(i+1) / time.Duration(len(text)))))
		}
	}
}

// endless writes head and then text again and again until nobody reads.
func endless(head, text string) func(net.Conn) {
	return func(conn net.Conn) {
		_, err := io.WriteString(conn, head)
		for err == nil {
			_, err = io.WriteString(conn, strings.Repeat(text, 64))
		}
	}
}

const ok = "HTTP/1.1 200 OK\r\n"

// Reasons for which a body is not sound.
const (
	notJSON    = "the answer is not a valid JSON object"
	noRefresh  = "the answer has no complete refresh token"
	accessOnly = "the answer has no refresh token"
	different  = "the answer has different refresh tokens"
	noAccess   = "it has no access token, or more than one"
	notBearer  = "its token_type is not bearer"
	noLifetime = "it does not give the lifetime of the access token"
	noEncoding = "the encoding of the answer is unknown"
	tooLong    = "the unpacked answer is too long"
	damaged    = "the compressed answer is damaged"
)

var hostiles = []hostile{
	// Bodies.
	{"empty", answer(200, ""), rotation.Captured, "HTTP 200", rotation.Empty, "the answer is empty"},
	{"null", answer(200, "null"), rotation.Captured, "HTTP 200", rotation.Empty, noRefresh},
	{"array", answer(200, "["+whole+"]"), rotation.Captured, "HTTP 200", rotation.Salvaged, notJSON},
	{"empty array", answer(200, "[]"), rotation.Captured, "HTTP 200", rotation.Empty, noRefresh},
	{"truncated", answer(200, whole[:60]), rotation.Captured, "HTTP 200", rotation.Empty, noRefresh},
	{"trailing garbage", answer(200, whole+"}]x"), rotation.Captured, "HTTP 200", rotation.Salvaged, notJSON},
	{"two documents, alike", answer(200, whole+"\n"+whole), rotation.Captured, "HTTP 200", rotation.Salvaged, notJSON},
	{"two documents, different", answer(200, whole+strings.Replace(whole, "canary-refresh", "canary-other", 1)),
		rotation.Captured, "HTTP 200", rotation.Contradictory, different},
	{"byte order mark", answer(200, "\uFEFF"+whole), rotation.Captured, "HTTP 200", rotation.Sound, ""},
	{"UTF-16", answer(200, inUTF16(whole)), rotation.Captured, "HTTP 200", rotation.Sound, ""},
	{"gzip", answer(200, gzipped(whole), "Content-Encoding: gzip"), rotation.Captured, "HTTP 200", rotation.Sound, ""},
	{"brotli", answer(200, inBrotli, "Content-Encoding: br"), rotation.Captured, "HTTP 200", rotation.Unreadable,
		noEncoding},
	{"form-encoded", answer(200,
		"access_token=canary-access&refresh_token=canary-refresh&token_type=bearer&expires_in=5400\n"), rotation.Captured,
		"HTTP 200", rotation.Salvaged, notJSON},
	{"HTML 200", answer(200, "<!DOCTYPE html><title>canary</title>", "Content-Type: text/html"), rotation.Captured,
		"HTTP 200", rotation.Empty, noRefresh},
	{"HTML 502", answer(502, "<html>canary</html>", "Content-Type: text/html"), rotation.UnknownResult, "HTTP 502", "",
		""},
	{"200 with error", answer(200, `{"error":"invalid_grant"}`), rotation.Captured, "HTTP 200", rotation.Empty,
		"the answer has no refresh token; its error is invalid_grant"},
	{"deep nesting", answer(200, strings.Repeat(`{"a":[`, 20_000)), rotation.Captured, "HTTP 200", rotation.Empty,
		noRefresh},
	{"deep nesting round the answer", answer(200, strings.Repeat(`[`, 20_000)+whole+strings.Repeat(`]`, 20_000)),
		rotation.Captured, "HTTP 200", rotation.Salvaged, notJSON},

	// Keys.
	{"duplicate keys, alike", but("{", `{"refresh_token":"canary-refresh",`), rotation.Captured, "HTTP 200",
		rotation.Sound, ""},
	{"duplicate keys, different", but("{", `{"refresh_token":"canary-other",`), rotation.Captured, "HTTP 200",
		rotation.Contradictory, different},
	{"a key in other case", but("{", `{"Refresh_Token":"canary-other",`), rotation.Captured, "HTTP 200", rotation.Sound,
		""},
	{"the key in other case only", but("refresh_token", "REFRESH_TOKEN"), rotation.Captured, "HTTP 200",
		rotation.AccessOnly, accessOnly},

	// The refresh token.
	{"refresh token missing", but(`,"refresh_token":"canary-refresh"`, ""), rotation.Captured, "HTTP 200",
		rotation.AccessOnly, accessOnly},
	{"refresh token empty", but("canary-refresh", ""), rotation.Captured, "HTTP 200", rotation.AccessOnly, accessOnly},
	{"refresh token null", but(`"canary-refresh"`, "null"), rotation.Captured, "HTTP 200", rotation.AccessOnly,
		accessOnly},
	{"refresh token a number", but(`"canary-refresh"`, "12345"), rotation.Captured, "HTTP 200", rotation.AccessOnly,
		accessOnly},
	{"refresh token an array", but(`"canary-refresh"`, `["canary-refresh"]`), rotation.Captured, "HTTP 200",
		rotation.AccessOnly, accessOnly},
	{"refresh token with a newline", but("canary-refresh", `canary\nrefresh`), rotation.Captured, "HTTP 200",
		rotation.AccessOnly, accessOnly},
	{"refresh token of 64 KiB", but("canary-refresh", strings.Repeat("r", 64<<10)), rotation.Captured, "HTTP 200",
		rotation.Sound, ""},
	{"refresh token as sent", but("canary-refresh", refreshGrant.RefreshToken.Reveal()), rotation.Captured, "HTTP 200",
		rotation.Sound, ""},

	// The access token.
	{"access token missing", but(`"access_token":"canary-access",`, ""), rotation.Captured, "HTTP 200", rotation.Salvaged,
		noAccess},
	{"token_type mac", but("bearer", "mac"), rotation.Captured, "HTTP 200", rotation.Salvaged, notBearer},
	{"token_type Bearer", but("bearer", "Bearer"), rotation.Captured, "HTTP 200", rotation.Sound, ""},
	{"token_type bearer", answer(200, whole), rotation.Captured, "HTTP 200", rotation.Sound, ""},
	{"token_type missing", but(`"token_type":"bearer",`, ""), rotation.Captured, "HTTP 200", rotation.Salvaged, notBearer},
	{"expires_in a string", but("5400", `"5400"`), rotation.Captured, "HTTP 200", rotation.Sound, ""},
	{"expires_in negative", but("5400", "-5400"), rotation.Captured, "HTTP 200", rotation.Salvaged, noLifetime},
	{"expires_in zero", but("5400", "0"), rotation.Captured, "HTTP 200", rotation.Salvaged, noLifetime},
	{"expires_in 1e400", but("5400", "1e400"), rotation.Captured, "HTTP 200", rotation.Salvaged, noLifetime},
	{"expires_in 5.4e3", but("5400", "5.4e3"), rotation.Captured, "HTTP 200", rotation.Sound, ""},
	{"expires_in missing", but(`"expires_in":5400,`, ""), rotation.Captured, "HTTP 200", rotation.Salvaged, noLifetime},
	{"expires_in 2^63", but("5400", "9223372036854775808"), rotation.Captured, "HTTP 200", rotation.Salvaged, noLifetime},
	{"created_at in the future", but("1795000000", "4000000000"), rotation.Captured, "HTTP 200", rotation.Sound, ""},

	// The transport.
	{"gzip bomb", answer(200, strings.Repeat(gzipped(strings.Repeat("0", 1<<20)), 64), "Content-Encoding: gzip"),
		rotation.Captured, "HTTP 200", rotation.Unreadable, tooLong},
	{"Content-Length too long", bytesOf(ok + "Content-Length: 500\r\n\r\n" + whole), rotation.Captured,
		"HTTP 200, body cut off after 129 bytes: the server closed the connection", rotation.Sound, ""},
	{"Content-Length too short", bytesOf(ok + "Content-Length: 60\r\n\r\n" + whole), rotation.Captured, "HTTP 200",
		rotation.Empty, noRefresh},
	{"Content-Length twice", bytesOf(ok + "Content-Length: 5\r\nContent-Length: 129\r\n\r\n" + whole),
		rotation.UnknownResult,
		"sent, but no answer: the connection failed or its answer is not HTTP", "", ""},
	{"Content-Length negative", bytesOf(ok + "Content-Length: -1\r\n\r\n" + whole), rotation.UnknownResult,
		"sent, but no answer: the connection failed or its answer is not HTTP", "", ""},
	{"a byte at a time, in time", slowly(ok+"Content-Length: 129\r\n\r\n"+whole, 0), rotation.Captured, "HTTP 200",
		rotation.Sound, ""},
	{"a byte at a time, the body too slow", func(conn net.Conn) {
		_, _ = io.WriteString(conn, ok+"Content-Length: 129\r\n\r\n"+whole[:60])
		time.Sleep(100 * time.Millisecond)
		_, _ = io.WriteString(conn, whole[60:61])
		_, _ = io.Copy(io.Discard, conn) // the next one is not due before the client has gone
	}, rotation.Captured, "HTTP 200, body cut off after 61 bytes: timed out", rotation.Empty, noRefresh},
	{"a byte at a time, too slow", slowly(ok+"X: "+strings.Repeat("y", 500), 20*time.Second), rotation.UnknownResult,
		"sent, but no answer: timed out", "", ""},
	{"endless headers", endless(ok, "X-Canary: canary\r\n"), rotation.UnknownResult,
		"sent, but no answer: the connection failed or its answer is not HTTP", "", ""},
	{"an endless body", endless(ok+"\r\n", "canary"), rotation.Captured,
		"HTTP 200, only the first 262144 bytes of the body were read", rotation.Empty, noRefresh},
	{"1xx flood", endless("", "HTTP/1.1 103 Early Hints\r\nLink: canary\r\n\r\n"), rotation.UnknownResult,
		"sent, but no answer: the connection failed or its answer is not HTTP", "", ""},
	{"301", answer(301, "", "Location: /canary"), rotation.OddRefusal, "HTTP 301", "", ""},
	{"302", answer(302, "", "Location: /canary"), rotation.OddRefusal, "HTTP 302", "", ""},
	{"303", answer(303, "", "Location: /canary"), rotation.OddRefusal, "HTTP 303", "", ""},
	{"305", answer(305, "", "Location: /canary"), rotation.OddRefusal, "HTTP 305", "", ""},
	{"304", answer(304, ""), rotation.OddRefusal, "HTTP 304", "", ""},
	{"307", answer(307, "", "Location: /canary"), rotation.OddRefusal, "HTTP 307", "", ""},
	{"308", answer(308, "", "Location: /canary"), rotation.OddRefusal, "HTTP 308", "", ""},
	{"300 with the answer in it", answer(300, whole), rotation.OddRefusal, "HTTP 300", "", ""},
	{"reset after headers", func(conn net.Conn) {
		_, _ = io.WriteString(conn, ok+"Content-Length: 129\r\n\r\n")
		time.Sleep(100 * time.Millisecond) // a reset overtakes what is still on its way
		_ = conn.(*net.TCPConn).SetLinger(0)
	}, rotation.Captured, "HTTP 200, body cut off after 0 bytes: connection reset by peer", rotation.Empty,
		"the answer is empty"},

	// Refusals.
	{"403 of a firewall", answer(403, "<html>canary</html>", "Content-Type: text/html"), rotation.OddRefusal, "HTTP 403",
		"", ""},
	{"415", answer(415, "canary", "Content-Type: text/plain"), rotation.OddRefusal, "HTTP 415", "", ""},
	{"401 invalid_client", answer(401, `{"error":"invalid_client"}`), rotation.ClientFault, "HTTP 401 invalid_client", "",
		""},
	{"400 invalid_grant as HTML", answer(400, "<html>invalid_grant</html>", "Content-Type: text/html"),
		rotation.OddRefusal, "HTTP 400", "", ""},
	{"error as an object", answer(400, `{"error":{"code":"invalid_grant","text":"canary"}}`), rotation.OddRefusal,
		"HTTP 400", "", ""},
	{"error deeply nested", answer(400, strings.Repeat(`{"error":`, 20_000)), rotation.OddRefusal, "HTTP 400", "", ""},
	{"429 without Retry-After", answer(429, ""), rotation.RateLimited, "HTTP 429", "", ""},
	{"429 with seconds", answer(429, "", "Retry-After: 30"), rotation.RateLimited, "HTTP 429", "", ""},
	{"429 with a date", answer(429, "", "Date: Sat, 21 Nov 2026 22:00:00 GMT",
		"Retry-After: Sat, 21 Nov 2026 22:00:30 GMT"), rotation.RateLimited, "HTTP 429", "", ""},
	{"429 with a date of RFC 850", answer(429, "", "Date: Sat, 21 Nov 2026 22:00:00 GMT",
		"Retry-After: Saturday, 21-Nov-26 22:00:30 GMT"), rotation.RateLimited, "HTTP 429", "", ""},
	{"429 with a date of asctime", answer(429, "", "Date: Sat, 21 Nov 2026 22:00:00 GMT",
		"Retry-After: Sat Nov 21 22:00:30 2026"), rotation.RateLimited, "HTTP 429", "", ""},
	{"429 with a date that is past", answer(429, "", "Date: Sat, 21 Nov 2026 22:00:00 GMT",
		"Retry-After: Sat, 21 Nov 2026 21:00:00 GMT"), rotation.RateLimited, "HTTP 429", "", ""},
	{"429 with a reset", answer(429, "", "Date: Sat, 21 Nov 2026 22:00:00 GMT", "X-Rate-Limit-Reset: 1795298430"),
		rotation.RateLimited, "HTTP 429", "", ""},
	{"429 with zero", answer(429, "", "Retry-After: 0"), rotation.RateLimited, "HTTP 429", "", ""},
	{"429 with a fraction", answer(429, "", "Retry-After: 1.5"), rotation.RateLimited, "HTTP 429", "", ""},
	{"429 with nothing in it", answer(429, "", "Retry-After: "), rotation.RateLimited, "HTTP 429", "", ""},
	{"429 with more than any number", answer(429, "", "Retry-After: 99999999999999999999"), rotation.RateLimited,
		"HTTP 429", "", ""},
	{"429 with nonsense", answer(429, "", "Retry-After: soon"), rotation.RateLimited, "HTTP 429", "", ""},
	{"429 with a negative wait", answer(429, "", "Retry-After: -1"), rotation.RateLimited, "HTTP 429", "", ""},
	{"429 with a year", answer(429, "", "Retry-After: 31536000"), rotation.RateLimited, "HTTP 429", "", ""},
}

// waits are the waits that the 429 answers ask for; the others ask for none.
var waits = map[string]time.Duration{"429 with seconds": 30 * time.Second, "429 with a date": 30 * time.Second,
	"429 with a date of RFC 850": 30 * time.Second, "429 with a date of asctime": 30 * time.Second,
	"429 with a reset": 30 * time.Second, "429 with a year": maxWait, "429 with more than any number": maxWait}

// Every odd answer has one meaning and one text, is read within the redeem timeout
// and with one request, and leaves no secret anywhere.
func TestHostileAnswers(t *testing.T) {
	for _, h := range hostiles {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			server := listen(t, func(conn net.Conn, next func() (*http.Request, string, error)) {
				if _, _, err := next(); err == nil {
					h.sent(conn)
				}
			})
			began := time.Now()
			got := New(Config{RedeemTimeout: 2 * time.Second}).Redeem(t.Context(), testApp(server.url), refreshGrant)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
			if got.Class != h.class || got.Detail != h.detail || got.Wait != waits[h.name] {
				t.Errorf("got %s, %q, wait %v; want %s, %q, %v", got.Class, got.Detail, got.Wait, h.class, h.detail, waits[h.name])
			}
			if n := server.requests.Load(); n != 1 {
				t.Errorf("%d requests", n)
			}
			noCanary(t, got)
			if h.class != rotation.Captured {
				return
			}
			judged := Parse(got.Body)
			if judged.Verdict != h.verdict || judged.Reason != h.reason {
				t.Errorf("the body is %s, %q; want %s, %q", judged.Verdict, judged.Reason, h.verdict, h.reason)
			}
			noCanary(t, judged)
		})
	}
}

func FuzzClassify(f *testing.F) {
	f.Add(200, whole, "", "")
	f.Add(400, `{"error":"invalid_grant"}`, "", "")
	f.Add(429, "", "Sat, 21 Nov 2026 22:00:30 GMT", "1795298430")
	f.Add(429, "", "99999999999999999999", "-1")
	f.Add(401, `{"error":{"error":"invalid_client"}}`, "1e3", "soon")
	f.Fuzz(func(t *testing.T, status int, body, retryAfter, reset string) {
		header := http.Header{"Retry-After": {retryAfter}, "X-Rate-Limit-Reset": {reset}}
		got := classify(status, header, []byte(body), nil, time.Now())
		captured, limited := got.Class == rotation.Captured, got.Class == rotation.RateLimited
		odd, refused := got.Class == rotation.OddRefusal, 300 <= status && status <= 499
		switch {
		case got.Class == "", got.Wait < 0, got.Wait > maxWait:
			t.Errorf("%+v", got)
		case captured != (200 <= status && status <= 299), limited != (status == 429):
			t.Errorf("%d is %s", status, got.Class)
		case odd && !refused, refused && got.Class == rotation.UnknownResult:
			t.Errorf("%d is %s", status, got.Class)
		case captured && got.Body.Reveal() != body, !captured && !got.Body.IsZero():
			t.Errorf("the body became %q", got.Body.Reveal())
		case got.Class == rotation.Refused && !strings.Contains(body, "invalid_grant") && !strings.Contains(body, `\u`):
			t.Errorf("%q is invalid_grant", body)
		}
	})
}

func FuzzParseApplication(f *testing.F) {
	f.Add("sandbox", `{"client_id":"id","client_secret":"canary","redirect_uri":"https://example.com/callback/sandbox"}`)
	f.Add("own", `{"client_id":"id","client_secret":"s","redirect_uri":"http://localhost/","login_url":"http://127.0.0.1:1","api_url":"https://[::1]"}`)
	f.Add("", `{"client_id":1}`)
	f.Fuzz(func(t *testing.T, environment, text string) {
		app, err := ParseApplication(environment, token.NewSecret(text))
		if err != nil {
			return
		}
		if app.ClientID == "" || app.ClientSecret.IsZero() || app.LoginURL == "" || app.APIURL == "" ||
			app.Environment != environment {
			t.Errorf("%q is accepted as %+v", text, app)
		}
	})
}

// Identify reads no more from an answer than it says, and an answer that cannot be
// read gives no identity.
func FuzzIdentify(f *testing.F) {
	f.Add(200, `{"resource_owner_id":7,"application":{"uid":"id-1"}}`, 200, `{"login":"pat@example.com"}`)
	f.Add(200, `{"resource_owner_id":"7","application":{"uid":"id-1"}}`, 403, "")
	f.Add(401, "", 500, "<html>")
	f.Add(200, `{"resource_owner_id":{"a":[]},"application":[]}`, 200, `[]`)
	var infoStatus, meStatus int
	var info, me string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, body := meStatus, me
		if r.URL.Path == "/oauth/token/info" {
			status, body = infoStatus, info
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	defer server.Close()
	issuer := New(Config{})
	f.Fuzz(func(t *testing.T, s1 int, b1 string, s2 int, b2 string) {
		if s1 < 200 || s1 > 599 || s2 < 200 || s2 > 599 {
			return
		}
		infoStatus, info, meStatus, me = s1, b1, s2, b2
		got, err := issuer.Identify(t.Context(), testApp(server.URL), token.NewSecret("canary"), "42")
		switch {
		case err == nil && (got.ClientID == "" || s1 != 200):
			t.Errorf("%d %q identifies %+v", s1, b1, got)
		case got.Company != "" && got.Company != "42", got.Login != "" && s2 != 200:
			t.Errorf("%d %q identifies %+v", s2, b2, got)
		}
		noCanary(t, got, err)
	})
}
