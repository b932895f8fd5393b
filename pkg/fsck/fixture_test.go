package fsck_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/fsck"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var (
	acme = token.Connection{Environment: "sandbox", Name: "acme"}
	beta = token.Connection{Environment: "sandbox", Name: "beta"}
	// gone is disconnected, and fresh is not connected yet.
	gone  = token.Connection{Environment: "sandbox", Name: "gone"}
	fresh = token.Connection{Environment: "sandbox", Name: "new"}
	all   = []token.Connection{acme, beta, gone, fresh}
)

// settings are those of an installation that counts its puts.
var settings = rotation.DefaultSettings("one")

// parts are real stores with an issuer in memory.
type parts struct {
	ledger interface {
		rotation.Ledger
		fsck.Ledger
	}
	secrets rotation.SecretStore
	sealer  rotation.Sealer
	issuer  *rotationtest.Issuer
	apps    *rotationtest.Applications
	later   time.Duration // how far the rotators' clock is ahead
}

// installation is one on one machine.
type installation struct {
	*embedded.Store
	parts
	dir string
}

// build makes a sound installation with some history. It also returns the answer that a
// third rotation of acme would have saved, and an earlier one.
func build(t *testing.T) (in *installation, next, former rotation.TokenResponse) {
	t.Helper()
	in = open(t, t.TempDir(), nil)
	former = in.live(t)
	must(t, in.Close())
	fork := in.copy(t)
	fork.rotate(t, acme)
	return in, fork.current(t, acme), former
}

// live makes the history. It returns the answer to acme's consent.
func (p parts) live(t *testing.T) (former rotation.TokenResponse) {
	t.Helper()
	for _, c := range all {
		_, err := rotation.Register(t.Context(), p.ledger, p.secrets, settings.Stack, c)
		must(t, err)
		if c != fresh {
			p.connect(t, c)
		}
	}
	former = p.current(t, acme)
	for range 2 {
		p.rotate(t, acme)
	}
	p.rotate(t, beta)
	_, err := p.rotator(t).Disconnect(t.Context(), gone)
	must(t, err)
	return former
}

func open(t *testing.T, dir string, like *installation) *installation {
	t.Helper()
	store, err := embedded.Open(t.Context(), dir)
	must(t, err)
	t.Cleanup(func() { _ = store.Close() })
	in := &installation{store, newParts(), dir}
	in.ledger, in.secrets, in.sealer = store.Ledger(), store.SecretStore(), store.Sealer()
	if like != nil {
		in.issuer = like.issuer
	}
	return in
}

func newParts() parts {
	// Each copy of an installation rotates on its own, so the old pair must stay valid for the next one.
	overlap := rotationtest.Personality{Overlap: true}
	p := parts{issuer: &rotationtest.Issuer{Personality: overlap}, apps: &rotationtest.Applications{}}
	p.apps.Set(rotationtest.Sandbox)
	return p
}

// copy opens a copy of a store that was closed.
func (in *installation) copy(t *testing.T) *installation {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{embedded.DatabaseName, embedded.KeyName} {
		content, err := os.ReadFile(filepath.Join(in.dir, name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	return open(t, dir, in)
}

func (p parts) rotator(t *testing.T) *rotation.Rotator {
	t.Helper()
	r, err := rotation.NewRotator(rotation.Config{Ledger: p.ledger, SecretStore: p.secrets, Sealer: p.sealer,
		Applications: p.apps, Issuer: p.issuer, Settings: settings,
		Now: func() time.Time { return time.Now().Add(p.later) }})
	must(t, err)
	return r
}

// connect lets a different person consent for each connection.
func (p parts) connect(t *testing.T, c token.Connection) {
	t.Helper()
	consents, err := rotation.NewConsents(rotation.ConsentsConfig{Ledger: p.ledger, Sealer: p.sealer,
		Applications: p.apps, Issuer: p.issuer, Settings: settings})
	must(t, err)
	standing, err := consents.Standing(t.Context(), c)
	must(t, err)
	exchange, err := consents.Prepare(t.Context(), c, standing.Epoch)
	must(t, err)
	app := rotationtest.Sandbox
	owner := rotation.Identity{ClientID: app.ClientID, ResourceOwner: c.Name, Login: c.Name + "@example.com",
		Company: "42"}
	result, err := exchange.Redeem(t.Context(), rotation.Consent{Code: p.issuer.Authorize(owner, app.RedirectURI, ""),
		RedirectURI: app.RedirectURI, Expect: rotation.Identity{Company: "42"}})
	if must(t, err); result != rotation.Connected {
		t.Fatalf("consent to %s: %s", c, result)
	}
	_, err = p.rotator(t).Publish(t.Context(), c)
	must(t, err)
}

func (p parts) rotate(t *testing.T, c token.Connection) {
	t.Helper()
	report, err := p.rotator(t).Rotate(t.Context(), c)
	if must(t, err); report.Connections[0].Outcome != rotation.Rotated {
		t.Fatalf("rotating: %+v", report.Connections[0])
	}
}

// current is the response of the current pair.
func (p parts) current(t *testing.T, c token.Connection) rotation.TokenResponse {
	t.Helper()
	rec, responses, err := p.ledger.Load(t.Context(), c)
	must(t, err)
	for _, m := range responses {
		if m.Key == rec.Current.Response {
			return m
		}
	}
	t.Fatalf("%s has no current response", c)
	return rotation.TokenResponse{}
}

// edit changes a row, and nothing else.
func (in *installation) edit(t *testing.T, c token.Connection, change func(*rotation.Record)) {
	t.Helper()
	in.write(t, c, func(rec *rotation.Record) rotation.Change {
		change(rec)
		return rotation.Change{}
	})
}

func (in *installation) write(t *testing.T, c token.Connection, change func(*rotation.Record) rotation.Change) {
	t.Helper()
	rec, _, err := in.Ledger().Load(t.Context(), c)
	must(t, err)
	written := change(&rec)
	written.Record = rec
	_, err = in.Ledger().Write(t.Context(), written)
	must(t, err)
}

// save puts a response into the ledger, in place of one with the same key.
func (in *installation) save(t *testing.T, c token.Connection, m rotation.TokenResponse) {
	t.Helper()
	in.write(t, c, func(*rotation.Record) rotation.Change { return rotation.Change{Bury: []rotation.ResponseKey{m.Key}} })
	in.write(t, c, func(*rotation.Record) rotation.Change { return rotation.Change{Copy: []rotation.TokenResponse{m}} })
}

// happened adds an event to the history.
func (in *installation) happened(t *testing.T, c token.Connection, e rotation.Event) {
	t.Helper()
	in.write(t, c, func(*rotation.Record) rotation.Change { return rotation.Change{History: []rotation.Event{e}} })
}

// show changes the value that readers of acme see.
func (in *installation) show(t *testing.T, value token.Secret) (id string) {
	t.Helper()
	secrets := in.SecretStore()
	shown, err := secrets.Current(t.Context(), acme)
	must(t, err)
	id = token.VersionID(value)
	must(t, secrets.Put(t.Context(), acme, id, value))
	must(t, secrets.Promote(t.Context(), acme, id, shown.ID))
	return id
}

// publish changes the document that readers of acme see, and records it in the row as
// published.
func (in *installation) publish(t *testing.T, change func(*token.Document)) {
	t.Helper()
	id := in.show(t, in.document(t, change))
	in.edit(t, acme, func(rec *rotation.Record) { rec.Published, rec.Current.VersionID = id, id })
}

func (in *installation) document(t *testing.T, change func(*token.Document)) token.Secret {
	t.Helper()
	shown, err := in.SecretStore().Current(t.Context(), acme)
	must(t, err)
	doc, err := token.ParseDocument(shown.Value)
	must(t, err)
	change(&doc)
	value, err := doc.Encode()
	must(t, err)
	return value
}

func (p parts) config() fsck.Config {
	return fsck.Config{Ledger: p.ledger, Secrets: p.secrets, Sealer: p.sealer, Issuer: p.issuer, Settings: settings}
}

// sql changes what no port can change.
func (in *installation) sql(t *testing.T, statement string) {
	t.Helper()
	must(t, in.Close())
	runSQL(t, filepath.Join(in.dir, embedded.DatabaseName), statement)
	*in = *open(t, in.dir, in)
}

// escrowed is the value of a version with an answer in escrow.
func escrowed(t *testing.T, m rotation.TokenResponse) (id string, value token.Secret) {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"escrow": 1, "mint": m})
	must(t, err)
	value = token.NewSecret(string(raw))
	id = "escrow-" + token.VersionID(value)
	if kept, ok := rotation.EscrowedResponse(rotation.Version{ID: id, Value: value}); !ok || kept.Key != m.Key {
		t.Fatal("that is no escrow")
	}
	return id, value
}

// withField adds a field to a document.
func withField(value token.Secret, name, text string) token.Secret {
	return token.NewSecret(strings.TrimSuffix(value.Reveal(), "}") + `,"` + name + `":"` + text + `"}`)
}

// keyless has no permission to open anything.
type keyless struct{ rotation.Sealer }

func (keyless) Unwrap(context.Context, []byte) ([]byte, error) {
	return nil, errors.New("kms:Decrypt is denied")
}

func ago(d time.Duration) time.Time { return time.Now().Add(-d).UTC().Truncate(time.Millisecond) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
