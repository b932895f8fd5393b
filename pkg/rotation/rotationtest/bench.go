package rotationtest

import (
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Bench is one fake of every port, behind one gate and with one journal.
type Bench struct {
	Journal      *Journal
	Ledger       *Ledger
	Vault        *Vault
	Sealer       *Sealer
	Issuer       *Issuer
	Applications *Applications
	FollowUps    *FollowUps
	Pace         *Pace
	Notifier     *Notifier
	// Announcements of all processes.
	Announcements *Announcements
	Settings      rotation.Settings
	// Log takes what the program under test logs, answers and returns as errors.
	Log *Log
}

// Sandbox is the app of a new Bench.
var Sandbox = rotation.Application{Environment: "sandbox", ClientID: "client-1",
	ClientSecret: token.NewSecret("client+/secret=="), RedirectURI: "https://example.com/callback/sandbox",
	LoginURL: "https://login.example.com", APIURL: "https://api.example.com"}

// NewBench makes one whose calls pass gate (nil: freely), with the app
// credentials of Sandbox.
func NewBench(gate Gate, personality Personality) *Bench {
	j := &Journal{}
	sealer := NewSealer()
	sealer.Gate = gate
	b := &Bench{
		Journal:       j,
		Ledger:        &Ledger{Gate: gate, Journal: j},
		Vault:         &Vault{Gate: gate, Journal: j},
		Sealer:        sealer,
		Issuer:        &Issuer{Gate: gate, Journal: j, Personality: personality},
		Applications:  &Applications{Gate: gate},
		FollowUps:     &FollowUps{Gate: gate, Journal: j},
		Pace:          &Pace{Gate: gate},
		Notifier:      &Notifier{Gate: gate, Journal: j},
		Announcements: &Announcements{Gate: gate},
		Settings:      rotation.DefaultSettings("bench"),
		Log:           &Log{},
	}
	b.Applications.Set(Sandbox)
	b.Issuer.Register(Sandbox)
	return b
}
