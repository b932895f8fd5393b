// Package webpage is the look of every page of the product, and the headers that protect
// them: one style sheet, with light and dark colors, and one icon. Pages contain both, so
// that a browser fetches nothing else.
//
// A template uses them as
//
//	<link rel="icon" href="{{icon}}">
//	<style>{{style}}</style>
package webpage

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strings"
)

//go:embed style.css
var styleSheet string

//go:embed icon.svg
var icon string

// StyleSheet is the content of a style element.
var StyleSheet = template.CSS(styleSheet)

// StyleSource allows StyleSheet in a Content-Security-Policy.
var StyleSource = Source(styleSheet)

// Source returns the hash source (CSP Level 3, section 2.3.1) that allows an inline style or
// script element with exactly this content.
func Source(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// Icon returns the icon of every page as a data: URL.
func Icon() template.URL {
	return template.URL("data:image/svg+xml;base64," + base64.StdEncoding.EncodeToString([]byte(icon)))
}

// Funcs are the functions for templates: icon and style.
func Funcs() template.FuncMap {
	return template.FuncMap{"icon": Icon, "style": func() template.CSS { return StyleSheet }}
}

// Protect sets the headers of a page. Without extra, its Content-Security-Policy allows the
// style sheet and the icon only: no script, no form, no frame, no connection. Each extra is
// a directive such as "form-action 'self'"; its sources are added to those that the
// directive has here. A page of a product on https sets Strict-Transport-Security as well.
func Protect(header http.Header, extra ...string) {
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Security-Policy", policy(extra))
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	header.Set("X-Robots-Tag", "noindex, nofollow")
}

func policy(extra []string) string {
	directives := []string{"default-src 'none'", "style-src " + StyleSource, "img-src data:", "form-action 'none'",
		"base-uri 'none'", "frame-ancestors 'none'"}
	for _, wanted := range extra {
		directives = allow(directives, wanted)
	}
	return strings.Join(directives, "; ")
}

// allow adds a directive, or its sources to the directive of the same name: a browser
// ignores the second one of a name.
func allow(directives []string, wanted string) []string {
	name, sources, _ := strings.Cut(wanted, " ")
	for i, have := range directives {
		if haveName, already, _ := strings.Cut(have, " "); haveName == name {
			if already != "'none'" {
				sources = already + " " + sources
			}
			directives[i] = name + " " + sources
			return directives
		}
	}
	return append(directives, wanted)
}
