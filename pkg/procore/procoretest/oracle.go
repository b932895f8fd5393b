package procoretest

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// NewApp registers an app with made-up credentials.
func (h *Handler) NewApp(redirectURIs ...string) App {
	app := App{Name: "tokenturn", ClientID: random(), ClientSecret: token.NewSecret(random()), RedirectURIs: redirectURIs}
	h.Register(app)
	return app
}

// Register adds an app, or replaces the one with its client id.
func (h *Handler) Register(app App) {
	h.mu.Lock()
	defer h.mu.Unlock()
	app.RedirectURIs = slices.Clone(app.RedirectURIs)
	h.apps[app.ClientID] = app
}

// SetLifetime changes how long access tokens issued from now on live.
func (h *Handler) SetLifetime(lifetime time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lifetime = lifetime
}

// Uninstall disconnects the app from the company; Install reverses it.
func (h *Handler) Uninstall(clientID string, company int64) {
	h.setUninstalled(clientID, company, true)
}

// Install connects the app to the company again.
func (h *Handler) Install(clientID string, company int64) { h.setUninstalled(clientID, company, false) }

func (h *Handler) setUninstalled(clientID string, company int64, gone bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.uninstalled[installation{clientID, company}] = gone
}

// Issue makes a pair as if the user had just consented.
func (h *Handler) Issue(clientID, login string) (token.Pair, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	user := h.user(login)
	if _, ok := h.apps[clientID]; !ok || user == nil {
		return token.Pair{}, fmt.Errorf("procoretest: no such app, or no user %q", login)
	}
	return h.issueForConsent(clientID, user).public(), nil
}

func (p *pair) public() token.Pair {
	return token.Pair{AccessToken: token.NewSecret(p.access), RefreshToken: token.NewSecret(p.refresh),
		TokenType: "Bearer",
		Lifetime:  p.lifetime, CreatedAt: p.created}
}

// Live lists the pairs that are neither spent nor revoked, in the order of their
// issue. Their access tokens may have expired; their refresh tokens are good.
func (h *Handler) Live() []token.Pair {
	h.mu.Lock()
	defer h.mu.Unlock()
	var live []token.Pair
	for _, p := range h.pairs {
		if !p.dead {
			live = append(live, p.public())
		}
	}
	return live
}

// Accepts reports whether the token, access or refresh, would be accepted now.
// The call is not a use.
func (h *Handler) Accepts(t token.Secret) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.byRefresh[t.Reveal()]; p != nil {
		return !p.dead
	}
	p := h.byAccess[t.Reveal()]
	return p != nil && !p.dead && h.now().Before(p.expiresAt())
}

// Presentations lists every appearance of a code or refresh token at the token
// endpoint, oldest first.
func (h *Handler) Presentations() []Presentation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.presentations)
}

// Presented returns how often each code and refresh token was presented.
func (h *Handler) Presented() map[token.Fingerprint]int {
	counts := map[token.Fingerprint]int{}
	for _, p := range h.Presentations() {
		counts[p.Fingerprint]++
	}
	return counts
}

// RevokeAll acts as if the user withdrew the app's access: every pair and code of
// the two dies.
func (h *Handler) RevokeAll(clientID, login string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.pairs {
		p.dead = p.dead || p.client == clientID && p.user.Login == login
	}
	for _, c := range h.codes {
		c.revoked = c.revoked || c.client == clientID && c.user.Login == login
	}
}

// Forget deletes every pair and code, as an overwritten sandbox does.
// Apps, users and presentations stay.
func (h *Handler) Forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.codes, h.byAccess, h.byRefresh, h.pairs = map[string]*code{}, map[string]*pair{}, map[string]*pair{}, nil
}

// Secrets lists every token and code issued (since Forget) and every client
// secret, for searching logs and pages.
func (h *Handler) Secrets() []token.Secret {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []token.Secret
	for _, known := range [][]string{slices.Collect(maps.Keys(h.byAccess)), slices.Collect(maps.Keys(h.byRefresh)),
		slices.Collect(maps.Keys(h.codes))} {
		for _, text := range known {
			all = append(all, token.NewSecret(text))
		}
	}
	for _, app := range h.apps {
		all = append(all, app.ClientSecret)
	}
	return all
}
