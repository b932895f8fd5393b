package procore

import (
	"fmt"
	"io"
	"net/http"
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
		"200":                        {200, "canary", nil, rotation.Captured, "HTTP 200"},
		"200 with nothing":           {200, "", nil, rotation.Captured, "HTTP 200"},
		"200 cut off":                {200, "canary", io.ErrUnexpectedEOF, rotation.Captured, "HTTP 200, body cut off after 6 bytes: the server closed the connection"},
		"200 with an error":          {200, oauth("invalid_grant"), nil, rotation.Captured, "HTTP 200"},
		"201":                        {201, "canary", nil, rotation.Captured, "HTTP 201"},
		"204":                        {204, "", nil, rotation.Captured, "HTTP 204"},
		"299":                        {299, "canary", nil, rotation.Captured, "HTTP 299"},
		"400 invalid_grant":          {400, oauth("invalid_grant"), nil, rotation.Refused, "HTTP 400 invalid_grant"},
		"401 invalid_grant":          {401, oauth("invalid_grant"), nil, rotation.Refused, "HTTP 401 invalid_grant"},
		"401 invalid_client":         {401, oauth("invalid_client"), nil, rotation.ClientFault, "HTTP 401 invalid_client"},
		"400 invalid_client":         {400, oauth("invalid_client"), nil, rotation.ClientFault, "HTTP 400 invalid_client"},
		"403 unauthorized_client":    {403, oauth("unauthorized_client"), nil, rotation.GrantFault, "HTTP 403 unauthorized_client"},
		"400 invalid_request":        {400, oauth("invalid_request"), nil, rotation.RequestFault, "HTTP 400 invalid_request"},
		"401 invalid_request":        {401, oauth("invalid_request"), nil, rotation.RequestFault, "HTTP 401 invalid_request"},
		"unsupported_grant_type":     {400, oauth("unsupported_grant_type"), nil, rotation.RequestFault, "HTTP 400 unsupported_grant_type"},
		"invalid_scope":              {400, oauth("invalid_scope"), nil, rotation.RequestFault, "HTTP 400 invalid_scope"},
		"an unknown code":            {400, oauth("canary"), nil, rotation.UnknownResult, "HTTP 400"},
		"a code of another kind":     {400, `{"error":{"message":"invalid_grant canary"}}`, nil, rotation.UnknownResult, "HTTP 400"},
		"a code cut off":             {400, `{"error":"invalid_grant"`, io.ErrUnexpectedEOF, rotation.UnknownResult, "HTTP 400, body cut off after 24 bytes: the server closed the connection"},
		"whole although cut off":     {400, oauth("invalid_grant"), io.ErrUnexpectedEOF, rotation.Refused, "HTTP 400, body cut off after 59 bytes: the server closed the connection invalid_grant"},
		"401 HTML":                   {401, "<html>canary invalid_grant</html>", nil, rotation.UnknownResult, "HTTP 401"},
		"400 empty":                  {400, "", nil, rotation.UnknownResult, "HTTP 400"},
		"404":                        {404, "canary", nil, rotation.UnknownResult, "HTTP 404"},
		"408":                        {408, "canary", nil, rotation.UnknownResult, "HTTP 408"},
		"429":                        {429, "canary", nil, rotation.RateLimited, "HTTP 429"},
		"429 with a code":            {429, oauth("invalid_grant"), nil, rotation.RateLimited, "HTTP 429"},
		"301":                        {301, "canary", nil, rotation.UnknownResult, "HTTP 301"},
		"307":                        {307, "canary", nil, rotation.UnknownResult, "HTTP 307"},
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
			if (c.class == rotation.Captured) != (got.Body.Reveal() == c.body && c.body != "" || c.body == "" && c.class == rotation.Captured) {
				t.Errorf("body %q", got.Body.Reveal())
			}
			if waits := c.class == rotation.RateLimited || c.class == rotation.UnknownResult; waits != (got.Wait == 9*time.Second) {
				t.Errorf("wait %v", got.Wait)
			}
			noCanary(t, got)
		})
	}
}

func TestAskedWait(t *testing.T) {
	now := time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)
	date := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	unix := func(d time.Duration) string { return fmt.Sprint(now.Add(d).Unix()) }
	for name, c := range map[string]struct {
		retryAfter, reset, date string
		want                    time.Duration
	}{
		"neither":                 {"", "", "", 0},
		"seconds":                 {"30", "", "", 30 * time.Second},
		"a date":                  {date(time.Minute), "", "", time.Minute},
		"reset":                   {"", unix(10 * time.Second), "", 10 * time.Second},
		"the longer of both":      {"5", unix(10 * time.Second), "", 10 * time.Second},
		"and the other way round": {"20", unix(10 * time.Second), "", 20 * time.Second},
		"by the server's clock":   {date(time.Hour + time.Minute), unix(time.Hour + 10*time.Second), date(time.Hour), time.Minute},
		"in the past":             {date(-time.Minute), unix(-time.Minute), "", 0},
		"negative":                {"-5", "-5", "", 0},
		"no number":               {"soon", "later", "", 0},
		"too long":                {"7200", "", "", maxWait},
		"milliseconds":            {"", fmt.Sprint(now.UnixMilli()), "", maxWait},
		"overflowing":             {"99999999999999999999", "99999999999999999999", "", maxWait},
	} {
		header := http.Header{}
		for name, value := range map[string]string{"Retry-After": c.retryAfter, "X-Rate-Limit-Reset": c.reset, "Date": c.date} {
			if value != "" {
				header.Set(name, value)
			}
		}
		if got := askedWait(header, now); got != c.want {
			t.Errorf("%s: %v instead of %v", name, got, c.want)
		}
	}
}

// The headers of an ordinary answer say when the window ends; they ask for time
// only when nothing is left of it.
func TestAnExhaustedLimit(t *testing.T) {
	now := time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		status    int
		remaining string
		want      time.Duration
	}{
		{200, "24", 0}, {200, "", 0}, {200, "0", 10 * time.Second}, {500, "24", 0}, {500, "0", 10 * time.Second}, {429, "24", 10 * time.Second},
	} {
		header := http.Header{"X-Rate-Limit-Limit": {"25"}, "X-Rate-Limit-Remaining": {c.remaining},
			"X-Rate-Limit-Reset": {fmt.Sprint(now.Add(10 * time.Second).Unix())}}
		if got := classify(c.status, header, nil, nil, now); got.Wait != c.want {
			t.Errorf("%d with %q remaining: wait %v, want %v", c.status, c.remaining, got.Wait, c.want)
		}
	}
}
