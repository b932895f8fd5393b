package procoretest

import (
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"time"
)

var (
	formTag   = regexp.MustCompile(`<form method="post" action="([^"]*)">`)
	hiddenTag = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
)

// Consent does what a person with a browser would: it opens the authorization
// page, signs in as login, and chooses Allow or Deny. It returns the
// address to which the browser is finally sent, without opening it: the app's
// redirect URI with its code or error, or the page that shows an out-of-band code. The server
// must be reachable at authorizeURL.
func (h *Handler) Consent(authorizeURL, login string, allow bool) (redirect string, err error) {
	user := h.user(login)
	if user == nil {
		return "", fmt.Errorf("procoretest: no user %q", login)
	}
	decision := "deny"
	if allow {
		decision = "allow"
	}
	b, err := newBrowser()
	if err != nil {
		return "", err
	}
	page, err := b.get(authorizeURL)
	for range 10 {
		switch {
		case err != nil:
			return "", err
		case page.location != nil && (page.location.Host != page.at.Host || page.location.Path != "/oauth/authorize"):
			return page.location.String(), nil
		case page.location != nil:
			page, err = b.get(page.location.String())
		case page.form == "/oauth/login" && page.status == http.StatusOK:
			page, err = b.submit(page, url.Values{"login": {user.Login}, "password": {user.Password}})
		case page.form == "/oauth/authorize":
			page, err = b.submit(page, url.Values{"decision": {decision}})
		default:
			return "", fmt.Errorf("procoretest: the authorization page is an error page, HTTP %d", page.status)
		}
	}
	return "", errors.New("procoretest: the authorization pages redirect to each other without end")
}

// browser keeps cookies and follows no redirect on its own.
type browser struct{ client http.Client }

func newBrowser() (*browser, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	return &browser{http.Client{
		Jar:           jar,
		Timeout:       30 * time.Second,
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// page is what a browser shows, or the address to which it is sent.
type page struct {
	status   int
	at       *url.URL
	location *url.URL
	form     string // action of the form on it
	hidden   url.Values
}

func (b *browser) get(address string) (page, error) { return read(b.client.Get(address)) }

func (b *browser) submit(p page, fields url.Values) (page, error) {
	for name, values := range p.hidden {
		fields[name] = values
	}
	action, err := p.at.Parse(p.form)
	if err != nil {
		return page{}, err
	}
	return read(b.client.PostForm(action.String(), fields))
}

func read(resp *http.Response, err error) (page, error) {
	if err != nil {
		return page{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return page{}, err
	}
	p := page{status: resp.StatusCode, at: resp.Request.URL, hidden: url.Values{}}
	if location, err := resp.Location(); err == nil {
		p.location = location
	}
	if match := formTag.FindStringSubmatch(string(body)); match != nil {
		p.form = match[1]
	}
	for _, match := range hiddenTag.FindAllStringSubmatch(string(body), -1) {
		p.hidden.Set(match[1], html.UnescapeString(match[2]))
	}
	return p, nil
}
