package consent_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/consent"
	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
)

func TestInvite(t *testing.T) {
	s := newServer(t)
	now := s.clock.Now()
	seen := map[string]bool{}
	for range 3 {
		link, made, err := invitations.New(t.Context(), s.store.Store, publicURL+"/", invitations.Invitation{
			Connection: acme, Expect: rotation.Identity{Company: "7"}, CreatedAt: now, Starts: 4, Hash: "forged"})
		if err != nil {
			t.Fatal(err)
		}
		text := link.Reveal()
		if !regexp.MustCompile(`^https://tokens\.example\.com/connect/[A-Z2-7]{52}$`).MatchString(text) || seen[text] {
			t.Errorf("link %s", text)
		}
		seen[text] = true
		secret := text[strings.LastIndex(text, "/")+1:]
		if made.Hash != hashOf(secret) || made.ExpiresAt != now.Add(72*time.Hour) || made.Starts != 0 ||
			made.Expect.Company != "7" {
			t.Errorf("invitation %+v", made)
		}
		if stored := s.invitation(made.Hash); stored != made {
			t.Errorf("stored %+v", stored)
		}
	}
}

func TestInviteRefuses(t *testing.T) {
	s := newServer(t)
	now := s.clock.Now()
	for _, c := range []struct {
		name, url, says string
		wanted          invitations.Invitation
	}{
		{"no connection", publicURL, "needs a connection", invitations.Invitation{CreatedAt: now}},
		{"no time", publicURL, "present time", invitations.Invitation{Connection: acme}},
		{"expired", publicURL, "lifetime above zero",
			invitations.Invitation{Connection: acme, CreatedAt: now, ExpiresAt: now}},
		{"plain HTTP", "http://tokens.example.com", "https://", invitations.Invitation{Connection: acme, CreatedAt: now}},
	} {
		t.Run(c.name, func(t *testing.T) {
			link, _, err := invitations.New(t.Context(), s.store.Store, c.url, c.wanted)
			if err == nil || !strings.Contains(err.Error(), c.says) || !link.IsZero() {
				t.Errorf("error %v", err)
			}
		})
	}
	if list, err := s.store.Invitations(t.Context(), now); err != nil || len(list) != 0 {
		t.Errorf("%d invitations, %v", len(list), err)
	}
}

func TestNewReportsAllProblems(t *testing.T) {
	_, err := consent.New(consent.Config{PublicURL: "ftp://x"})
	for _, word := range []string{"public URL", "Store", "Consents", "Applications", "AuthorizeURL", "Logger", "Now"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s is not in %v", word, err)
		}
	}
}

func TestPublicURLs(t *testing.T) {
	s := newServer(t)
	for url, good := range map[string]bool{
		"https://tokens.example.com":           true,
		"https://tokens.example.com:8443/a/":   true,
		"http://localhost:8080":                true,
		"http://127.0.0.1":                     true,
		"http://[::1]:8080":                    true,
		"":                                     false,
		"tokens.example.com":                   false,
		"http://tokens.example.com":            false,
		"http://localhost.example.com":         false,
		"http://127.0.0.1.example.com":         false,
		"https://":                             false,
		"https://user:pw@tokens.example.com":   false,
		"https://tokens.example.com/?a=1":      false,
		"https://tokens.example.com/#a":        false,
		"https://a;script-src *":               false,
		"javascript:alert(1)":                  false,
		"https://tokens.example.com\r\nX-Y: 1": false,
	} {
		_, _, err := invitations.New(t.Context(), s.store.Store, url, invitations.Invitation{Connection: acme,
			CreatedAt: s.clock.Now()})
		if (err == nil) != good {
			t.Errorf("%q: %v", url, err)
		}
		if err != nil && strings.Contains(err.Error(), "pw@") {
			t.Errorf("the password is in %v", err)
		}
	}
}

func TestInviteReportsTheStore(t *testing.T) {
	_, _, err := invitations.New(t.Context(), brokenStore{}, publicURL, invitations.Invitation{Connection: acme,
		CreatedAt: time.Now()})
	if !errors.Is(err, errStoreDown) || !strings.Contains(err.Error(), "sandbox/acme") {
		t.Errorf("error %v", err)
	}
}

// A link in a notice is an ordinary invitation for the connection's present epoch.
func TestRenewals(t *testing.T) {
	s := newServer(t)
	now := s.clock.Now()
	app, err := s.apps.Application(t.Context(), acme.Environment)
	if err != nil {
		t.Fatal(err)
	}
	renewals := invitations.Renewals{Store: s.store.Store, Applications: s.apps,
		PublicURL: strings.TrimSuffix(app.RedirectURI, "/callback/"+acme.Environment)}
	link, until, err := renewals.Renew(t.Context(), rotation.Record{Connection: acme, Epoch: 3}, now)
	if err != nil || !until.Equal(now.Add(invitations.DefaultLifetime)) {
		t.Fatalf("until %v, %v", until, err)
	}
	text := link.Reveal()
	if made := s.invitation(hashOf(text[strings.LastIndex(text, "/")+1:])); made.Connection != acme || made.Epoch != 3 {
		t.Errorf("invitation %+v", made)
	}
	renewals.PublicURL = "https://elsewhere.example.com"
	if link, _, err := renewals.Renew(t.Context(), rotation.Record{Connection: acme}, now); err == nil || !link.IsZero() ||
		!strings.Contains(err.Error(), "register the first in the Developer Portal and store it with") {
		t.Errorf("a link that could not work: %v", err)
	}
}
