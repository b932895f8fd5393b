package invitations

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/token"
)

var allowed = []string{"https://app.example.com", "https://app.example.com:8443", "http://localhost:3000"}

func TestReturnURLsThatAreAccepted(t *testing.T) {
	for _, text := range []string{
		"https://app.example.com",
		"https://app.example.com/",
		"https://app.example.com/done",
		"https://app.example.com/done?customer=42&step=2",
		"https://app.example.com:443/done",
		"https://APP.example.com/done",
		"https://app.example.com:8443/a/b/c",
		"http://localhost:3000/back",
		"https://app.example.com//evil.example", // the same origin
		"https://app.example.com/@evil.example",
		"https://app.example.com/%2e%2e/x",
	} {
		u, err := ParseReturnURL(text, allowed)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		back, err := url.Parse(ReturnAddress(u, token.Connection{Environment: "sandbox", Name: "acme"}, "connected", "AB12"))
		if err != nil || back.Host != u.Host || back.Scheme != u.Scheme || back.Path != u.Path ||
			back.Query().Get("connection") != "sandbox/acme" || back.Query().Get("result") != "connected" ||
			back.Query().Get("reference") != "AB12" || u.Query().Get("customer") != back.Query().Get("customer") {
			t.Errorf("%s becomes %s, %v", text, back, err)
		}
	}
}

// attempts are addresses that lead elsewhere in some browser, or that browsers and servers
// read differently.
var attempts = []string{
	// other origins
	"https://evil.example", "https://evil.example/app.example.com", "https://app.example.com.evil.example",
	"https://evil-app.example.com", "https://xapp.example.com", "https://example.com", "https://sub.app.example.com",
	"https://app.example.com.", "https://app.example.com./done", "https://app.example.com..", "https://.app.example.com",
	"https://app.example.com:80", "https://app.example.com:8444", "https://app.example.com:08443",
	"https://app.example.com:", "https://app.example.com:443443", "https://app.example.com:-1",
	"http://app.example.com", "http://localhost",
	"http://localhost:3001", "http://127.0.0.1:3000", "https://localhost:3000",
	"http://[::1]:3000", "http://localhost.evil.example:3000", "http://evil.localhost:3000",
	// users
	"https://app.example.com@evil.example", "https://app.example.com:x@evil.example", "https://user@app.example.com",
	"https://user:pass@app.example.com", "https://@app.example.com", "https://app.example.com%40evil.example",
	"https://evil.example@app.example.com",
	// backslashes
	`https://evil.example\@app.example.com`, `https:\\app.example.com`, `https:/\app.example.com`,
	`https://app.example.com\evil.example`, `https://app.example.com/\evil.example`, `\\evil.example`, `/\evil.example`,
	// other schemes, and none
	"//evil.example", "//app.example.com", "///evil.example", "/done", "done", "", "https:app.example.com",
	"https:/app.example.com", "https:///app.example.com", "HTTPS://app.example.com", "Https://app.example.com",
	"javascript:alert(1)", "javascript://app.example.com/%0aalert(1)", "data:text/html,x", "ftp://app.example.com",
	"https+x://app.example.com", "blob:https://app.example.com/x", "view-source:https://app.example.com",
	// white space and control characters
	" https://app.example.com", "https://app.example.com ", "https://app.example.com/ x", "https://app.example.com\t",
	"https://app.example.com\n.evil.example",
	"https://app.example.com/\r\nSet-Cookie: a=b", "https://app.example.com/\x00",
	"ht\ntps://app.example.com", "https://app.example.com/done\r\n\r\n<script>", "https://app.example.com\u2028",
	// encodings and other letters
	"https://app%2eexample.com", "https://app.example.com%2f.evil.example", "https://app.example.com%00.evil.example",
	"https://app.example。com", "https://ａpp.example.com", "https://app.ехample.com", "https://app.example.com/ü",
	"https://app.example.com／evil.example", "https://xn--app-example.com", "https://app.example.com/%zz?%zz",
	// fragments and parameters of the result
	"https://app.example.com/#x", "https://app.example.com#@evil.example", "https://app.example.com/?a=b#c",
	"https://app.example.com/?result=connected", "https://app.example.com/?connection=sandbox%2Facme",
	"https://app.example.com/?%72esult=connected", "https://app.example.com/?a=1&reference=X",
	"https://app.example.com/?a=1;result=connected",
	// characters that end an attribute or a header
	`https://app.example.com/"onclick="x`, "https://app.example.com/<script>", "https://app.example.com/'x",
	"https://app.example.com/{x}", "https://app.example.com/|x", "https://app.example.com/^x",
	"https://app.example.com;evil.example", "https://app.example.com,evil.example", "https://*.example.com",
	"https://app.example.com?x", // a host without a path and with a query is read differently
	"https://" + strings.Repeat("a", 2000) + ".example.com",
}

func TestReturnURLsThatAreRefused(t *testing.T) {
	refused := 0
	for _, text := range attempts {
		if u, err := ParseReturnURL(text, allowed); err == nil {
			t.Errorf("%q is accepted as %s", text, u)
			continue
		}
		refused++
	}
	t.Logf("%d of %d attempts are refused", refused, len(attempts))
	if _, err := ParseReturnURL("https://app.example.com", nil); !errors.Is(err, ErrOrigin) {
		t.Errorf("without a list of origins: %v", err)
	}
	for _, text := range []string{"app.example.com", "https://user@app.example.com", "http://app.example.com"} {
		if _, err := ParseReturnURL(text, nil); err == nil || errors.Is(err, ErrOrigin) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestParseReturnOrigins(t *testing.T) {
	got, err := ParseReturnOrigins("https://App.example.com:443, http://localhost:3000  https://b.example")
	if err != nil || strings.Join(got, " ") != "https://app.example.com http://localhost:3000 https://b.example" {
		t.Errorf("%q, %v", got, err)
	}
	for _, text := range []string{"https://app.example.com/", "https://app.example.com/x", "https://*.example.com",
		"http://app.example.com", "app.example.com", "https://u@app.example.com", "https://app.example.com?x", "*", "null"} {
		if got, err := ParseReturnOrigins(text); err == nil {
			t.Errorf("%q gives %q", text, got)
		}
	}
}

// Whatever is accepted leads to an origin of the list.
func FuzzReturnURL(f *testing.F) {
	for _, text := range attempts {
		f.Add(text)
	}
	f.Add("https://app.example.com/done?customer=42")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseReturnURL(text, allowed)
		if err != nil {
			return
		}
		back := ReturnAddress(u, token.Connection{Environment: "sandbox", Name: "acme"}, "denied", "AB12")
		leads := false
		for _, origin := range allowed {
			rest, found := strings.CutPrefix(strings.ToLower(back), origin)
			rest = strings.TrimPrefix(rest, ":443")
			leads = leads || found && (rest == "" || rest[0] == '/' || rest[0] == '?')
		}
		if !leads || strings.ContainsAny(back, "\\\r\n\t\"'<> #") {
			t.Errorf("%q leads to %q", text, back)
		}
	})
}
