package webpage_test

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"regexp"
	"strconv"
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
		t.Error("the page's style sheet does not have the hash that the policy allows")
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

// WCAG 2.2 criterion 1.4.3: text needs a contrast of 4.5 to 1.
func TestContrast(t *testing.T) {
	schemes := regexp.MustCompile(`:root \{([^}]*)\}`).FindAllStringSubmatch(string(webpage.StyleSheet), -1)
	if len(schemes) != 2 {
		t.Fatalf("%d schemes instead of a light and a dark one", len(schemes))
	}
	for i, scheme := range schemes {
		colors := map[string]float64{}
		for _, c := range regexp.MustCompile(`--([a-z-]+): #([0-9a-f]+)`).FindAllStringSubmatch(scheme[1], -1) {
			colors[c[1]] = luminance(t, c[2])
		}
		for _, pair := range [][2]string{{"ink", "sheet"}, {"ink", "paper"}, {"ink", "raised"}, {"quiet", "sheet"},
			{"quiet", "paper"}, {"quiet", "raised"}, {"quiet", "off-soft"}, {"accent", "sheet"}, {"accent", "paper"},
			{"accent", "raised"}, {"accent", "accent-soft"}, {"on-accent", "accent"}, {"good", "sheet"}, {"good", "good-soft"},
			{"warn", "sheet"}, {"warn", "warn-soft"}, {"bad", "sheet"}, {"bad", "bad-soft"}, {"off", "off-soft"},
			{"ink", "good-soft"}, {"ink", "warn-soft"}, {"ink", "bad-soft"}, {"ink", "accent-soft"}, {"ink", "off-soft"}} {
			a, b := colors[pair[0]], colors[pair[1]]
			if contrast := (max(a, b) + 0.05) / (min(a, b) + 0.05); a == 0 && b == 0 || contrast < 4.5 {
				t.Errorf("scheme %d: %v has a contrast of %.2f", i, pair, contrast)
			}
		}
		// Criterion 1.4.11: what shows where a field or a button is needs 3 to 1.
		a, b := colors["edge"], colors["sheet"]
		if contrast := (max(a, b) + 0.05) / (min(a, b) + 0.05); contrast < 3 {
			t.Errorf("scheme %d: an edge has a contrast of %.2f", i, contrast)
		}
	}
}

// luminance is the relative luminance of WCAG 2.2.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	if len(hex) == 3 {
		hex = fmt.Sprintf("%c%[1]c%c%[2]c%c%[3]c", hex[0], hex[1], hex[2])
	}
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		c := float64(n) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}
