package rotationtest

import (
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Harness is one fake of every port, behind one gate and with one journal.
type Harness struct {
	Journal      *Journal
	Ledger       *Ledger
	SecretStore  *SecretStore
	Sealer       *Sealer
	Issuer       *Issuer
	Applications *Applications
	FollowUps    *FollowUps
	RateLimiter  *RateLimiter
	Notifier     *Notifier
	// NoticeClaims of all processes.
	NoticeClaims *NoticeClaims
	Settings     rotation.Settings
	// Log takes what the program under test logs, answers and returns as errors.
	Log *Log
}

// Sandbox is the app of a new Harness.
var Sandbox = rotation.Application{Environment: "sandbox", ClientID: "client-1",
	ClientSecret: token.NewSecret("client+/secret=="), RedirectURI: "https://example.com/callback/sandbox",
	LoginURL: "https://login.example.com", APIURL: "https://api.example.com"}

// NewHarness makes a harness with the app credentials of Sandbox. All calls pass gate; nil:
// there is no gate.
func NewHarness(gate Gate, personality Personality) *Harness {
	j := &Journal{}
	sealer := NewSealer()
	sealer.Gate = gate
	b := &Harness{
		Journal:      j,
		Ledger:       &Ledger{Gate: gate, Journal: j},
		SecretStore:  &SecretStore{Gate: gate, Journal: j},
		Sealer:       sealer,
		Issuer:       &Issuer{Gate: gate, Journal: j, Personality: personality},
		Applications: &Applications{Gate: gate},
		FollowUps:    &FollowUps{Gate: gate, Journal: j},
		RateLimiter:  &RateLimiter{Gate: gate},
		Notifier:     &Notifier{Gate: gate, Journal: j},
		NoticeClaims: &NoticeClaims{Gate: gate},
		Settings:     rotation.DefaultSettings("harness"),
		Log:          &Log{},
	}
	b.Applications.Set(Sandbox)
	b.Issuer.Register(Sandbox)
	return b
}
