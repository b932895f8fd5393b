package procore

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

const whole = `{"access_token":"canary-access","token_type":"bearer","expires_in":5400,"refresh_token":"canary-refresh","created_at":1795000000}`

func TestParse(t *testing.T) {
	created := time.Unix(1795000000, 0).UTC()
	full := token.Pair{AccessToken: token.NewSecret("canary-access"), RefreshToken: token.NewSecret("canary-refresh"),
		TokenType: "bearer", Lifetime: 90 * time.Minute, CreatedAt: created}
	with := func(change func(*token.Pair)) token.Pair {
		p := full
		change(&p)
		return p
	}
	noCreated := with(func(p *token.Pair) { p.CreatedAt = time.Time{} })
	noType := with(func(p *token.Pair) { p.TokenType = "" })
	noAccess := with(func(p *token.Pair) { p.AccessToken = token.Secret{} })
	noLifetime := with(func(p *token.Pair) { p.Lifetime = 0 })
	refreshOnly := token.Pair{RefreshToken: full.RefreshToken}
	accessDated := with(func(p *token.Pair) { p.RefreshToken = token.Secret{} })
	accessOnly := with(func(p *token.Pair) { p.RefreshToken, p.CreatedAt = token.Secret{}, time.Time{} })

	for name, c := range map[string]struct {
		body    string
		verdict rotation.Verdict
		pair    token.Pair
	}{
		"the documented answer": {whole, rotation.Sound, full},
		"white space":           {"\n " + whole + "\r\n", rotation.Sound, full},
		"unknown fields": {strings.Replace(whole, "{", `{"scope":"","x":{"refresh_token":"other"},"y":[1],`,
			1), rotation.Sound, full},
		"Bearer": {strings.Replace(whole, "bearer", "Bearer", 1), rotation.Sound,
			with(func(p *token.Pair) { p.TokenType = "Bearer" })},
		"numeric string": {strings.Replace(whole, "5400", `"5400"`, 1), rotation.Sound, full},
		"fraction":       {strings.Replace(whole, "5400", `5400.0`, 1), rotation.Sound, full},
		"old spelling": {strings.Replace(whole, "expires_in", "expires_in_seconds", 1), rotation.Sound,
			full},
		"both spellings": {strings.Replace(whole, "{", `{"expires_in_seconds":5400,`, 1), rotation.Sound,
			full},
		"no created_at": {strings.Replace(whole, `,"created_at":1795000000`, "", 1), rotation.Sound,
			noCreated},
		"created_at is a date": {strings.Replace(whole, `1795000000`, `"2026-11-21"`, 1), rotation.Sound,
			noCreated},
		"created_at in milliseconds": {strings.Replace(whole, `1795000000`, `1795000000000`, 1), rotation.Sound,
			noCreated},
		"escapes": {strings.Replace(whole, "canary-refresh", `can\u0061ry\/refresh`, 1),
			rotation.Sound, with(func(p *token.Pair) { p.RefreshToken = token.NewSecret("canary/refresh") })},
		"the same refresh token twice": {strings.Replace(whole, "{", `{"refresh_token":"canary-refresh",`, 1),
			rotation.Sound, full},
		"no token_type": {strings.Replace(whole, `"token_type":"bearer",`, "", 1), rotation.Salvaged,
			noType},
		"another token_type": {strings.Replace(whole, "bearer", "mac", 1), rotation.Salvaged,
			with(func(p *token.Pair) { p.TokenType = "mac" })},
		"no access token": {strings.Replace(whole, `"access_token":"canary-access",`, "", 1),
			rotation.Salvaged, noAccess},
		"access token null": {strings.Replace(whole, `"canary-access"`, "null", 1), rotation.Salvaged, noAccess},
		"access token would break HTTP": {strings.Replace(whole, "canary-access", `a\r\nX: y`, 1), rotation.Salvaged,
			noAccess},
		"two access tokens": {strings.Replace(whole, "{", `{"access_token":"another",`, 1), rotation.Salvaged,
			noAccess},
		"no lifetime": {strings.Replace(whole, `"expires_in":5400,`, "", 1), rotation.Salvaged,
			noLifetime},
		"lifetime 0":                 {strings.Replace(whole, "5400", "0", 1), rotation.Salvaged, noLifetime},
		"negative lifetime":          {strings.Replace(whole, "5400", "-1", 1), rotation.Salvaged, noLifetime},
		"endless lifetime":           {strings.Replace(whole, "5400", `"Infinity"`, 1), rotation.Salvaged, noLifetime},
		"absurd lifetime":            {strings.Replace(whole, "5400", `1e300`, 1), rotation.Salvaged, noLifetime},
		"two lifetimes":              {strings.Replace(whole, "{", `{"expires_in":1,`, 1), rotation.Salvaged, noLifetime},
		"an imported token":          {`{"refresh_token":"canary-refresh"}`, rotation.Salvaged, refreshOnly},
		"cut off after the token":    {whole[:strings.Index(whole, `"created_at"`)], rotation.Salvaged, noCreated},
		"cut off in the last number": {whole[:len(whole)-3], rotation.Salvaged, noCreated},
		"cut off right at its quote": {`{"refresh_token":"canary-refresh"`, rotation.Salvaged, refreshOnly},
		"text after it":              {whole + "<html>oops</html>", rotation.Salvaged, full},
		"text before it":             {"OK " + whole, rotation.Salvaged, full},
		"a byte order mark":          {"\uFEFF" + whole, rotation.Sound, full},
		"the same answer twice":      {whole + whole, rotation.Salvaged, full},
		"and again, cut off":         {whole + whole[:strings.Index(whole, "refresh\",")], rotation.Salvaged, full},
		"wrapped in an object":       {`{"data":` + whole + `}`, rotation.Salvaged, full},
		"in a list":                  {`[` + whole + `]`, rotation.Salvaged, full},
		"a form": {
			"access_token=canary-access&token_type=bearer&refresh_token=canary-refresh&expires_in=5400&created_at=1795000000\n",
			rotation.Salvaged, full},
		"a form, last field unsure": {"refresh_token=canary-refresh&expires_in=54", rotation.Salvaged, refreshOnly},
		"different ones in a form": {"refresh_token=canary-refresh&refresh_token=canary-other&x=",
			rotation.Contradictory, token.Pair{}},
		"different ones": {strings.Replace(whole, "{", `{"refresh_token":"canary-other",`, 1),
			rotation.Contradictory, token.Pair{}},
		"different answers": {whole + strings.Replace(whole, "canary-refresh", "canary-other", 1),
			rotation.Contradictory, token.Pair{}},
		"different ones, wrapped": {`{"new":` + whole + `,"old":{"refresh_token":"canary-other"}}`,
			rotation.Contradictory, token.Pair{}},
		"one and the start of another": {whole + `{"refresh_token":"canary-oth`, rotation.Contradictory, token.Pair{}},
		"nothing":                      {"", rotation.Empty, token.Pair{}},
		"HTML":                         {"<!DOCTYPE html><html><body>Welcome</body></html>", rotation.Empty, token.Pair{}},
		"no refresh token": {`{"access_token":"canary-access","token_type":"bearer","expires_in":5400}`,
			rotation.AccessOnly, accessOnly},
		"an access token of no lifetime": {`{"access_token":"canary-access","token_type":"bearer"}`, rotation.Empty,
			token.Pair{}},
		"a refresh token elsewhere": {strings.Replace(strings.Replace(whole, `"refresh_token":"canary-refresh",`, "", 1),
			"{", `{"more":{"refresh_token":"canary-refresh"},`, 1), rotation.Salvaged, full},
		"refresh token null": {strings.Replace(whole, `"canary-refresh"`, "null", 1), rotation.AccessOnly,
			accessDated},
		"refresh token empty": {strings.Replace(whole, `canary-refresh`, "", 1), rotation.AccessOnly, accessDated},
		"refresh token a number": {strings.Replace(whole, `"canary-refresh"`, "12345", 1), rotation.AccessOnly,
			accessDated},
		"cut off in the token":        {whole[:strings.Index(whole, `refresh",`)], rotation.Empty, token.Pair{}},
		"cut off after a backslash":   {`{"refresh_token":"canary\`, rotation.Empty, token.Pair{}},
		"a form cut off in the token": {"access_token=canary-access&refresh_token=canary-re", rotation.Empty, token.Pair{}},
		"the token runs into a page":  {`{"refresh_token":"canary-re<html class="x"></html>`, rotation.Empty, token.Pair{}},
		"the token runs into a tag":   {`{"refresh_token":"canary-re<p/id="x">`, rotation.Empty, token.Pair{}},
		"bytes after it":              {whole + "\x00\x00\x01", rotation.Salvaged, full},
		"an old web page": {"<html><title>Caf\xe9 du P\xe8re</title><p>Nous revenons bient\xf4t.</html>",
			rotation.Empty, token.Pair{}},
		"cut off in a character":     {"<html>Caf\xc3", rotation.Empty, token.Pair{}},
		"invalid UTF-8 in the token": {"{\"refresh_token\":\"canary\xff\"}", rotation.Unreadable, token.Pair{}},
		"an error":                   {`{"error":"invalid_grant"}`, rotation.Empty, token.Pair{}},
	} {
		t.Run(name, func(t *testing.T) {
			got := Parse(token.NewSecret(c.body))
			if got.Verdict != c.verdict || got.Pair != c.pair {
				t.Errorf("got %s (%s), pair %s; want %s, pair %s", got.Verdict, got.Reason, open(got.Pair), c.verdict, open(c.pair))
			}
			if (got.Reason == "") != (got.Verdict == rotation.Sound) {
				t.Errorf("%s has the reason %q", got.Verdict, got.Reason)
			}
			noCanary(t, got)
		})
	}
}

func open(p token.Pair) []any {
	return []any{p.AccessToken.Reveal(), p.RefreshToken.Reveal(), p.TokenType, p.Lifetime, p.CreatedAt}
}

// Cutting a sound answer anywhere never yields a token other than the true ones.
func TestParseCutAnywhere(t *testing.T) {
	for n := range len(whole) {
		got := Parse(token.NewSecret(whole[:n]))
		if want := strings.Contains(whole[:n], `"canary-refresh"`); want != (got.Verdict == rotation.Salvaged) {
			t.Errorf("cut after %d bytes: %s", n, got.Verdict)
		}
		for _, half := range []struct {
			got  token.Secret
			want string
		}{{got.Pair.RefreshToken, "canary-refresh"}, {got.Pair.AccessToken, "canary-access"}} {
			if !half.got.IsZero() && half.got.Reveal() != half.want {
				t.Errorf("cut after %d bytes: a token became %q", n, half.got.Reveal())
			}
		}
		if got.Pair.Lifetime != 0 && got.Pair.Lifetime != 90*time.Minute {
			t.Errorf("cut after %d bytes: the lifetime became %v", n, got.Pair.Lifetime)
		}
		if !got.Pair.CreatedAt.IsZero() && got.Pair.CreatedAt.Unix() != 1795000000 {
			t.Errorf("cut after %d bytes: the time became %v", n, got.Pair.CreatedAt)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{whole, whole + whole, whole[:60], `{"data":` + whole + `}`, `{"refresh_token":"a\/b"}`,
		`{"refresh_token":"a\`,
		"access_token=a&refresh_token=b%2Fc&x", `{"expires_in":"1e9","refresh_token":"x","refresh_token":"y"}`,
		"\xff\"refresh_token\" : \"z\"",
		gzipped(whole), zlibbed(whole), deflated(whole), inUTF16(whole), gzipped(inUTF16(whole)), gzipped(whole)[:90]} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		got := Parse(token.NewSecret(body))
		refresh := got.Pair.RefreshToken.Reveal()
		has := got.Verdict == rotation.Sound || got.Verdict == rotation.Salvaged
		if has != (refresh != "") {
			t.Fatalf("%s with the refresh token %q", got.Verdict, refresh)
		}
		read := decode(body, maxLayers)
		if len(read.text) > max(maxText, len(body)*3/2) { // UTF-8 has three bytes for two of UTF-16
			t.Fatalf("%d bytes became %d", len(body), len(read.text))
		}
		if has && !inQuotes(read.text, refresh) && !inForm(read.text, refresh) {
			t.Fatalf("the refresh token %q is not in the input as a whole", refresh)
		}
		if (got.Verdict == rotation.Empty || got.Verdict == rotation.AccessOnly) && !read.explained {
			t.Fatalf("%q is not understood and taken for %s", body, got.Verdict)
		}
		if got.Pair.Lifetime < 0 || (got.Verdict == rotation.Sound && (got.Pair.Lifetime == 0 ||
			got.Pair.AccessToken.IsZero())) {
			t.Fatalf("%s: %v", got.Verdict, open(got.Pair))
		}
		if _, err := json.Marshal(got.Pair.CreatedAt); err != nil {
			t.Fatal(err)
		}
		if again := Parse(token.NewSecret(body)); again != got {
			t.Fatalf("not a function of its input: %v, %v", got, again)
		}
		for _, secret := range []string{refresh, got.Pair.AccessToken.Reveal()} {
			if len(secret) >= 8 && strings.Contains(got.Reason, secret) && !strings.Contains(knownReasons, secret) {
				t.Fatalf("the reason %q contains a token", got.Reason)
			}
		}
	})
}

// knownReasons are words that a fuzzer may use as a token by chance.
const knownReasons = "the answer is not a valid JSON object; it has no access token, or more than one; " +
	"its token_type is not bearer; it does not give the lifetime of the access token; the compressed answer is damaged"

// inQuotes reports whether a string literal in body has the value text.
func inQuotes(body, text string) bool {
	for start := range len(body) {
		if body[start] != '"' {
			continue
		}
		for end := start + 1; end < len(body); end++ {
			var literal string
			if body[end] == '"' && json.Unmarshal([]byte(body[start:end+1]), &literal) == nil && literal == text {
				return true
			}
		}
	}
	return false
}

// inForm reports whether a field before another field or a line break has the value text.
func inForm(body, text string) bool {
	for line := range strings.SplitAfterSeq(body, "\n") {
		for field := range strings.SplitAfterSeq(strings.ReplaceAll(line, "\r", "\n"), "&") {
			_, value, _ := strings.Cut(field, "=")
			plain, err := url.QueryUnescape(strings.TrimSpace(strings.TrimRight(value, "&")))
			if err == nil && plain == text && (strings.HasSuffix(field, "&") || strings.HasSuffix(field, "\n")) {
				return true
			}
		}
	}
	return false
}
