package webpage_test

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"html/template"
	"net/http"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/webpage"
)

// TestPageContainsTheAllowedStyleSheet renders a page: if html/template changed a byte of the
// style sheet, browsers would ignore all of it.
func TestPageContainsTheAllowedStyleSheet(t *testing.T) {
	page := template.Must(template.New("").Funcs(webpage.Funcs()).Parse(
		`<link rel="icon" href="{{icon}}"><style>{{style}}</style>`))
	var body bytes.Buffer
	if err := page.Execute(&body, nil); err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(body.String(), "<style>")
	style, _, found := strings.Cut(rest, "</style>")
	if !found || webpage.Source(style) != webpage.StyleSource {
		t.Error("the page's style sheet is not the one whose hash the policy allows")
	}
	for _, external := range []string{"url(", "@import", "http:", "https:"} {
		if strings.Contains(style, external) {
			t.Errorf("the style sheet has %q: a page fetches nothing", external)
		}
	}
}

func TestIconIsWellFormed(t *testing.T) {
	encoded, found := strings.CutPrefix(string(webpage.Icon()), "data:image/svg+xml;base64,")
	text, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || !found {
		t.Fatalf("not a data: URL of an SVG: %v", err)
	}
	if err := xml.Unmarshal(text, new(any)); err != nil {
		t.Errorf("the icon: %v", err)
	}
}

func TestProtect(t *testing.T) {
	for _, test := range []struct {
		name  string
		extra []string
		want  string
	}{
		{"nothing more", nil, "default-src 'none'; style-src STYLE; img-src data:; form-action 'none'; base-uri 'none'; " +
			"frame-ancestors 'none'"},
		{"a form, a logo, a script", []string{"form-action 'self' https:", "img-src 'self'", "script-src 'sha256-x'"},
			"default-src 'none'; style-src STYLE; img-src data: 'self'; form-action 'self' https:; base-uri 'none'; " +
				"frame-ancestors 'none'; script-src 'sha256-x'"},
	} {
		header := http.Header{}
		webpage.Protect(header, test.extra...)
		want := strings.ReplaceAll(test.want, "STYLE", webpage.StyleSource)
		if got := header.Get("Content-Security-Policy"); got != want {
			t.Errorf("%s: policy\n%s\nwant\n%s", test.name, got, want)
		}
		for name, want := range map[string]string{"Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"} {
			if got := header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", test.name, name, got, want)
			}
		}
	}
}
