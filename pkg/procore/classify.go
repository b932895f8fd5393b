package procore

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// maxWait bounds the wait that a server may request. Asking again costs nothing; being
// late costs the access token.
const maxWait = 15 * time.Minute

// meaning gives what each error code of RFC 6749 section 5.2 means for the
// credential that was presented. Doorkeeper checks the client and the request
// before it spends anything, and Procore's answers have the shape of Doorkeeper's.
var meaning = map[string]rotation.Class{
	"invalid_grant":          rotation.Refused,
	"invalid_client":         rotation.ClientFault,
	"unauthorized_client":    rotation.GrantFault,
	"invalid_request":        rotation.RequestFault,
	"unsupported_grant_type": rotation.RequestFault,
	"invalid_scope":          rotation.RequestFault,
}

// classify decides what an answer of the token endpoint means. cut is the error
// that ended reading the body early, if any. No other code may decide this.
func classify(status int, header http.Header, body []byte, cut error, now time.Time) rotation.Answer {
	detail := "HTTP " + strconv.Itoa(status)
	if cut != nil {
		detail += ", body cut off after " + strconv.Itoa(len(body)) + " bytes: " + fault(cut)
	}
	wait := serverWait(status, header, now)
	switch {
	case 200 <= status && status <= 299:
		if cut == nil && len(body) == maxBody {
			detail += fmt.Sprintf(", only the first %d bytes of the body were read", maxBody)
		}
		return rotation.Answer{Class: rotation.Captured, Body: token.NewSecret(string(body)), Wait: wait, Detail: detail}
	case status == http.StatusTooManyRequests:
		return rotation.Answer{Class: rotation.RateLimited, Wait: wait, Detail: detail}
	case 300 <= status && status <= 399:
		return rotation.Answer{Class: rotation.OddRefusal, Wait: wait, Detail: detail}
	case 400 <= status && status <= 499:
		// The code decides, not the status: releases of Doorkeeper differ in it.
		switch code := errorCode(decode(string(body), maxLayers).text); {
		case code != "":
			return rotation.Answer{Class: meaning[code], Detail: detail + " " + code}
		case cut == nil: // otherwise the code may be in the missing part
			return rotation.Answer{Class: rotation.OddRefusal, Wait: wait, Detail: detail}
		}
	}
	return rotation.Answer{Class: rotation.UnknownResult, Wait: wait, Detail: detail}
}

// errorCode returns the error code in a body's text if meaning has it, so that
// nothing else from a body gets into a message.
func errorCode(text string) string {
	var answer struct {
		Error string `json:"error"`
	}
	if json.Unmarshal([]byte(text), &answer) != nil {
		return ""
	}
	if _, known := meaning[answer.Error]; !known {
		return ""
	}
	return answer.Error
}

// serverWait returns how long a server asks the client to wait, at most maxWait:
// with a 429, the longer of Retry-After and X-Rate-Limit-Reset (Procore, "Rate
// Limiting": Unix seconds); with any other failure, Retry-After; with any answer,
// X-Rate-Limit-Reset if nothing is left until then. 0 if it asks for nothing.
// Absolute times count from the answer's own Date, so the two clocks need not agree.
func serverWait(status int, header http.Header, now time.Time) time.Duration {
	switch {
	case 200 <= status && status <= 299:
		return exhausted(header, now)
	case status == http.StatusTooManyRequests:
		return min(max(retryAfter(header, now), untilReset(header, byServer(header, now))), maxWait)
	}
	return max(retryAfter(header, now), exhausted(header, now))
}

// retryAfter reads Retry-After (RFC 9110 section 10.2.3): seconds or a date.
func retryAfter(header http.Header, now time.Time) time.Duration {
	value := header.Get("Retry-After")
	wait := seconds(value)
	if at, err := http.ParseTime(value); err == nil {
		wait = max(0, at.Sub(byServer(header, now)))
	}
	return min(wait, maxWait)
}

// exhausted returns how long to wait after an answer that says that the next
// request would be refused: X-Rate-Limit-Remaining is 0 until X-Rate-Limit-Reset.
func exhausted(header http.Header, now time.Time) time.Duration {
	if strings.TrimSpace(header.Get("X-Rate-Limit-Remaining")) != "0" {
		return 0
	}
	return min(untilReset(header, byServer(header, now)), maxWait)
}

// byServer returns the answer's own Date; now if it has none.
func byServer(header http.Header, now time.Time) time.Time {
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		return date
	}
	return now
}

func untilReset(header http.Header, now time.Time) time.Duration {
	reset := seconds(header.Get("X-Rate-Limit-Reset"))
	if reset == 0 {
		return 0
	}
	return max(0, time.Unix(int64(reset/time.Second), 0).Sub(now))
}

// seconds reads a whole number of seconds; 0 if text is not one. A number too
// large for a time.Duration becomes about the largest one: 285 years, or the year
// 2255 as a Unix time.
func seconds(text string) time.Duration {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0
	}
	return time.Duration(min(n, maxSeconds)) * time.Second
}

const maxSeconds = 9_000_000_000
