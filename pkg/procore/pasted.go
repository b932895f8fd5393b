package procore

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Errors of PastedCode: what a pasted text can be instead of a code.
var (
	// ErrNothingPasted: there is nothing but spaces and quotes.
	ErrNothingPasted = errors.New("nothing was pasted")
	// ErrNoCode: there is no authorization code in the text.
	ErrNoCode = errors.New("there is no authorization code in what was pasted")
	// ErrDenied: the address says that access was not allowed.
	ErrDenied = errors.New("the pasted address says that access was not allowed")
)

// OtherEnvironmentError says that a code comes from another environment's login
// host. It works only there.
type OtherEnvironmentError struct {
	Environment, Host   string // of the pasted address
	Wanted, WantedLogin string // of the environment that is being connected
}

func (e *OtherEnvironmentError) Error() string {
	return fmt.Sprintf("the pasted address is at %s, the login host of %s, but the code must come from %s (%s)", e.Host,
		e.Environment, e.Wanted, e.WantedLogin)
}

// PastedCode finds the authorization code in what a person copied: the code
// itself, code=..., the address of the page that shows it (Doorkeeper's
// /oauth/authorize/native?code=CODE, before 4.3 /oauth/authorize/CODE), or the
// address that Procore sent the browser to, with spaces and quotes around it. Some
// browsers copy an address without its scheme.
// Errors contain nothing of the text except the name of one of Procore's hosts:
// ErrNothingPasted, ErrNoCode, ErrDenied, *OtherEnvironmentError.
func PastedCode(app rotation.Application, pasted token.Secret) (token.Secret, error) {
	const around = " \t\r\n\"'`<>“”‘’\u00a0\u200b\ufeff"
	text := strings.Trim(pasted.Reveal(), around)
	if text == "" {
		return token.Secret{}, ErrNothingPasted
	}
	if host, _, found := strings.Cut(text, "/oauth/authorize/"); found && !strings.Contains(host, "/") {
		text = "https://" + text
	}
	code := text
	switch u, err := url.Parse(text); {
	case err == nil && (u.Scheme == "http" || u.Scheme == "https"):
		if err := checkOrigin(app, u); err != nil {
			return token.Secret{}, err
		}
		query := u.Query()
		switch {
		case query.Get("error") == "access_denied":
			return token.Secret{}, ErrDenied
		case query.Has("error"):
			return token.Secret{}, ErrNoCode
		}
		code = query.Get("code")
		if i := strings.LastIndex(u.Path, "/"); code == "" && i >= 0 && strings.HasSuffix(u.Path[:i], "/oauth/authorize") {
			code = u.Path[i+1:]
		}
	case strings.HasPrefix(text, "code="):
		query, err := url.ParseQuery(text)
		if err != nil {
			return token.Secret{}, ErrNoCode
		}
		code = query.Get("code")
	}
	code = strings.Trim(code, around)
	if code == "" || code == "native" || len(code) > 2048 || strings.ContainsFunc(code,
		func(r rune) bool { return !codeCharacter(r) }) {
		return token.Secret{}, ErrNoCode
	}
	return token.NewSecret(code), nil
}

// checkOrigin refuses the addresses of other environments' login hosts. Any
// other host passes: Procore does not document all hosts to which it sends a browser.
func checkOrigin(app rotation.Application, pasted *url.URL) error {
	if login, err := url.Parse(app.LoginURL); err == nil && strings.EqualFold(login.Host, pasted.Host) {
		return nil
	}
	for _, e := range Environments() {
		if host := strings.TrimPrefix(e.LoginURL, "https://"); strings.EqualFold(host, pasted.Host) {
			return &OtherEnvironmentError{e.Name, host, app.Environment, app.LoginURL}
		}
	}
	return nil
}

// codeCharacter accepts visible ASCII (RFC 6749 appendix A.11), except characters
// that show that something else was pasted.
func codeCharacter(r rune) bool {
	return r > ' ' && r <= '~' && !strings.ContainsRune("\"'\\<>{}?&", r)
}
