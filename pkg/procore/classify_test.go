package procore

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

func TestClassify(t *testing.T) {
	oauth := func(code string) string {
		return fmt.Sprintf(`{"error":%q,"error_description":"canary text"}`, code)
	}
	for name, c := range map[string]struct {
		status int
		body   string
		cut    error
		class  rotation.Class
		detail string
	}{
		"200":              {200, "canary", nil, rotation.Captured, "HTTP 200"},
		"200 with nothing": {200, "", nil, rotation.Captured, "HTTP 200"},
		"200 cut off": {200, "canary", io.ErrUnexpectedEOF, rotation.Captured,
			"HTTP 200, body cut off after 6 bytes: the server closed the connection"},
		"200 with an error":       {200, oauth("invalid_grant"), nil, rotation.Captured, "HTTP 200"},
		"201":                     {201, "canary", nil, rotation.Captured, "HTTP 201"},
		"204":                     {204, "", nil, rotation.Captured, "HTTP 204"},
		"299":                     {299, "canary", nil, rotation.Captured, "HTTP 299"},
		"400 invalid_grant":       {400, oauth("invalid_grant"), nil, rotation.Refused, "HTTP 400 invalid_grant"},
		"invalid_grant in gzip":   {400, gzipped(oauth("invalid_grant")), nil, rotation.Refused, "HTTP 400 invalid_grant"},
		"invalid_grant in UTF-16": {400, inUTF16(oauth("invalid_grant")), nil, rotation.Refused, "HTTP 400 invalid_grant"},
		"a page in gzip":          {403, gzipped("<html>invalid_grant</html>"), nil, rotation.OddRefusal, "HTTP 403"},
		"401 invalid_grant":       {401, oauth("invalid_grant"), nil, rotation.Refused, "HTTP 401 invalid_grant"},
		"401 invalid_client":      {401, oauth("invalid_client"), nil, rotation.ClientFault, "HTTP 401 invalid_client"},
		"400 invalid_client":      {400, oauth("invalid_client"), nil, rotation.ClientFault, "HTTP 400 invalid_client"},
		"403 unauthorized_client": {403, oauth("unauthorized_client"), nil, rotation.GrantFault,
			"HTTP 403 unauthorized_client"},
		"400 invalid_request": {400, oauth("invalid_request"), nil, rotation.RequestFault, "HTTP 400 invalid_request"},
		"401 invalid_request": {401, oauth("invalid_request"), nil, rotation.RequestFault, "HTTP 401 invalid_request"},
		"unsupported_grant_type": {400, oauth("unsupported_grant_type"), nil, rotation.RequestFault,
			"HTTP 400 unsupported_grant_type"},
		"invalid_scope":   {400, oauth("invalid_scope"), nil, rotation.RequestFault, "HTTP 400 invalid_scope"},
		"an unknown code": {400, oauth("canary"), nil, rotation.OddRefusal, "HTTP 400"},
		"a code of another kind": {400, `{"error":{"message":"invalid_grant canary"}}`, nil, rotation.OddRefusal,
			"HTTP 400"},
		"a code cut off": {400, `{"error":"invalid_grant"`, io.ErrUnexpectedEOF, rotation.UnknownResult,
			"HTTP 400, body cut off after 24 bytes: the server closed the connection"},
		"whole although cut off": {400, oauth("invalid_grant"), io.ErrUnexpectedEOF, rotation.Refused,
			"HTTP 400, body cut off after 59 bytes: the server closed the connection invalid_grant"},
		"401 HTML":          {401, "<html>canary invalid_grant</html>", nil, rotation.OddRefusal, "HTTP 401"},
		"400 empty":         {400, "", nil, rotation.OddRefusal, "HTTP 400"},
		"403 of a firewall": {403, "<html>canary</html>", nil, rotation.OddRefusal, "HTTP 403"},
		"415":               {415, `{"error":"unsupported_media_type"}`, nil, rotation.OddRefusal, "HTTP 415"},
		"302":               {302, oauth("invalid_grant"), nil, rotation.OddRefusal, "HTTP 302"},
		"a redirect cut off": {302, "canary", io.ErrUnexpectedEOF, rotation.OddRefusal,
			"HTTP 302, body cut off after 6 bytes: the server closed the connection"},
		"404":                        {404, "canary", nil, rotation.OddRefusal, "HTTP 404"},
		"408":                        {408, "canary", nil, rotation.OddRefusal, "HTTP 408"},
		"429":                        {429, "canary", nil, rotation.RateLimited, "HTTP 429"},
		"429 with a code":            {429, oauth("invalid_grant"), nil, rotation.RateLimited, "HTTP 429"},
		"301":                        {301, "canary", nil, rotation.OddRefusal, "HTTP 301"},
		"307":                        {307, "canary", nil, rotation.OddRefusal, "HTTP 307"},
		"500":                        {500, "canary", nil, rotation.UnknownResult, "HTTP 500"},
		"500 with a code":            {500, oauth("invalid_grant"), nil, rotation.UnknownResult, "HTTP 500"},
		"502 HTML":                   {502, "<html>canary</html>", nil, rotation.UnknownResult, "HTTP 502"},
		"503":                        {503, "canary", nil, rotation.UnknownResult, "HTTP 503"},
		"101":                        {101, "", nil, rotation.UnknownResult, "HTTP 101"},
		"a status out of all ranges": {999, "canary", nil, rotation.UnknownResult, "HTTP 999"},
	} {
		t.Run(name, func(t *testing.T) {
			got := classify(c.status, http.Header{"Retry-After": {"9"}}, []byte(c.body), c.cut, time.Now())
			if got.Class != c.class || got.Detail != c.detail {
				t.Errorf("got %s, %q; want %s, %q", got.Class, got.Detail, c.class, c.detail)
			}
			if (c.class == rotation.Captured) != (got.Body.Reveal() == c.body && c.body != "" || c.body == "" &&
				c.class == rotation.Captured) {
				t.Errorf("body %q", got.Body.Reveal())
			}
			waiting := []rotation.Class{rotation.RateLimited, rotation.OddRefusal, rotation.UnknownResult}
			if slices.Contains(waiting, c.class) != (got.Wait == 9*time.Second) {
				t.Errorf("wait %v", got.Wait)
			}
			noCanary(t, got)
		})
	}
}

// A wait that a server asks for, in any form and with any answer, is obeyed for at
// most maxWait. An ordinary answer asks for a wait only if nothing is left of the
// window.
func TestServerSentWaits(t *testing.T) {
	now := time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)
	date := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	unix := func(d time.Duration) string { return fmt.Sprint(now.Add(d).Unix()) }
	for name, c := range map[string]struct {
		retryAfter, reset, date string
		byRetryAfter, byReset   time.Duration // what each header asks for
	}{
		"neither":           {"", "", "", 0, 0},
		"seconds":           {"30", "", "", 30 * time.Second, 0},
		"a date":            {date(time.Minute), "", "", time.Minute, 0},
		"a date of RFC 850": {"Saturday, 21-Nov-26 22:01:00 GMT", "", "", time.Minute, 0},
		"reset":             {"", unix(10 * time.Second), "", 0, 10 * time.Second},
		"both":              {"5", unix(10 * time.Second), "", 5 * time.Second, 10 * time.Second},
		"by the server's clock": {date(time.Hour + time.Minute), unix(time.Hour + 10*time.Second), date(time.Hour),
			time.Minute, 10 * time.Second},
		"in the past":         {date(-time.Minute), unix(-time.Minute), "", 0, 0},
		"negative":            {"-5", "-5", "", 0, 0},
		"zero":                {"0", "0", "", 0, 0},
		"no number":           {"soon", "later", "", 0, 0},
		"a fraction":          {"1.5", "1.5", "", 0, 0},
		"15 minutes":          {"900", unix(maxWait), "", maxWait, maxWait},
		"more":                {"901", unix(maxWait + time.Second), "", maxWait, maxWait},
		"a year":              {"31536000", unix(365 * 24 * time.Hour), "", maxWait, maxWait},
		"year 2255":           {"Fri, 31 Dec 2255 23:59:59 GMT", "9024479999", "", maxWait, maxWait},
		"year 9999":           {"Fri, 31 Dec 9999 23:59:59 GMT", "253402300799", "", maxWait, maxWait},
		"milliseconds":        {"", fmt.Sprint(now.UnixMilli()), "", 0, maxWait},
		"64 bits":             {"9223372036854775807", "9223372036854775807", "", maxWait, maxWait},
		"overflowing 64 bits": {"9223372036854775808", "18446744073709551616", "", maxWait, maxWait},
		"overflowing":         {"99999999999999999999", "99999999999999999999", "", maxWait, maxWait},
		"a server in 1970":    {date(0), unix(0), "Thu, 01 Jan 1970 00:00:00 GMT", maxWait, maxWait},
		"a server in 9999":    {date(time.Hour), unix(time.Hour), "Fri, 31 Dec 9999 23:59:59 GMT", 0, 0},
	} {
		for _, status := range []int{200, 302, 403, 429, 500, 503} {
			for _, remaining := range []string{"", "24", "0"} {
				header := http.Header{}
				for name, value := range map[string]string{"Retry-After": c.retryAfter, "X-Rate-Limit-Reset": c.reset,
					"X-Rate-Limit-Remaining": remaining, "Date": c.date} {
					if value != "" {
						header.Set(name, value)
					}
				}
				var want time.Duration
				if status != 200 {
					want = c.byRetryAfter
				}
				if status == 429 || remaining == "0" {
					want = max(want, c.byReset)
				}
				if got := classify(status, header, nil, nil, now); got.Wait != want {
					t.Errorf("%s, HTTP %d with %q remaining: wait %v, want %v", name, status, remaining, got.Wait, want)
				}
			}
		}
	}
}
