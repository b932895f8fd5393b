package main

import (
	"crypto/rand"
	"io"
	"runtime"

	"github.com/cli/browser"
)

// openBrowser opens an address if there is a desktop. It does not wait and reports no
// error: the address is printed as well.
func (c *cli) openBrowser(address string) {
	desktop := runtime.GOOS == "darwin" || runtime.GOOS == "windows" || c.getenv("DISPLAY") != "" ||
		c.getenv("WAYLAND_DISPLAY") != ""
	if !desktop {
		return
	}
	browser.Stdout, browser.Stderr = io.Discard, io.Discard
	go func() { _ = browser.OpenURL(address) }()
}

// newState is the state parameter of one consent (RFC 6749 section 10.12). Procore wants
// it alphanumeric.
func newState() string { return rand.Text() + rand.Text() }
