package embedded_test

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

const (
	accessCanary = "canary-access-token-5d0f2b"
	secretCanary = "canary-client-secret-9a71c4"
)

// set stores both kinds of secret.
func set(t *testing.T, s *embedded.Store) {
	t.Helper()
	if err := s.Applications(parseApplication).Set(t.Context(), "production",
		token.NewSecret("id:"+secretCanary)); err != nil {
		t.Fatal(err)
	}
	if err := s.SecretStore().Create(t.Context(), acme, "first", token.NewSecret(accessCanary)); err != nil {
		t.Fatal(err)
	}
	if err := s.SecretStore().Put(t.Context(), acme, "second", token.NewSecret(accessCanary+"2")); err != nil {
		t.Fatal(err)
	}
}

// Neither the database nor its log shows a secret, in any usual spelling.
func TestFilesShowNoSecret(t *testing.T) {
	dir := t.TempDir()
	s, err := embedded.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	set(t, s)
	key, err := os.ReadFile(filepath.Join(dir, embedded.KeyName))
	if err != nil {
		t.Fatal(err)
	}
	encoded := strings.Fields(string(key))[1]
	master, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	data, _, err := s.Sealer().DataKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	search := func(when string) {
		t.Helper()
		files := contents(t, dir)
		delete(files, embedded.KeyName)
		if len(files) == 0 {
			t.Fatal("no files to search")
		}
		for name, content := range files {
			for what, secret := range map[string]string{"access token": accessCanary, "client secret": secretCanary,
				"master key": string(master), "encoded master key": encoded, "data key": string(data)} {
				for _, form := range []string{secret, hex.EncodeToString([]byte(secret)),
					strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(secret)), "=")} {
					if strings.Contains(content, form) {
						t.Errorf("%s: %s shows the %s", when, name, what)
					}
				}
			}
		}
	}
	if _, found := contents(t, dir)[embedded.DatabaseName+"-wal"]; !found {
		t.Error("there is no log to search")
	}
	search("open")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	search("closed")
}

// Sealed bytes open only in the row that they were sealed for.
func TestSealedBytesBelongToTheirRow(t *testing.T) {
	for name, spoil := range map[string]string{
		"changed":       `UPDATE version SET sealed = zeroblob(80)`,
		"cut off":       `UPDATE version SET sealed = x'00'`,
		"other version": `UPDATE version SET sealed = (SELECT sealed FROM version WHERE id = 'second')`,
		"other table":   `UPDATE version SET sealed = (SELECT sealed FROM application)`,
		"other connection": `PRAGMA foreign_keys = 0; UPDATE version SET connection = 'production/b';
			UPDATE label SET connection = 'production/b'`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir)
			set(t, s)
			execute(t, filepath.Join(dir, embedded.DatabaseName), spoil)
			c := acme
			if name == "other connection" {
				c.Name = "b"
			}
			version, err := s.SecretStore().Version(t.Context(), c, "first")
			if err == nil || !strings.Contains(err.Error(), "damaged or belong to another row") || !version.Value.IsZero() {
				t.Errorf("reading gave an error %v", err)
			}
			if version, err = s.SecretStore().Current(t.Context(), c); err == nil || errors.Is(err, rotation.ErrNoVersion) {
				t.Errorf("reading by label gave an error %v", err)
			}
		})
	}
}

func TestSealer(t *testing.T) {
	s, other := openStore(t, t.TempDir()).Sealer(), openStore(t, t.TempDir()).Sealer()
	key, wrapped, err := s.DataKey(t.Context())
	if err != nil || len(key) != 32 {
		t.Fatalf("%d bytes, %v", len(key), err)
	}
	if again, err := s.Unwrap(t.Context(), wrapped); err != nil || string(again) != string(key) {
		t.Errorf("unwrapping gave another key or %v", err)
	}
	if _, err := other.Unwrap(t.Context(), wrapped); !errors.Is(err, rotation.ErrUnsealable) {
		t.Errorf("another installation got %v", err)
	}
	for _, bad := range [][]byte{nil, {1}, wrapped[1:], append([]byte{0}, wrapped...)} {
		if _, err := s.Unwrap(t.Context(), bad); !errors.Is(err, rotation.ErrUnsealable) {
			t.Errorf("%d bytes got %v", len(bad), err)
		}
	}
}

func TestApplications(t *testing.T) {
	s := openStore(t, t.TempDir())
	apps := s.Applications(parseApplication)
	if _, err := apps.Application(t.Context(), "production"); !errors.Is(err, rotation.ErrNoApplication) {
		t.Errorf("before it is set: %v", err)
	}
	for _, id := range []string{"one", "two"} { // the later replaces the earlier
		if err := apps.Set(t.Context(), "production", token.NewSecret(id+":"+secretCanary)); err != nil {
			t.Fatal(err)
		}
	}
	app, err := apps.Application(t.Context(), "production")
	if err != nil || app.ClientID != "two" || app.ClientSecret.Reveal() != secretCanary ||
		app.Environment != "production" {
		t.Errorf("app %+v, %v", app, err)
	}
	if err := apps.Set(t.Context(), "production", token.NewSecret(secretCanary)); err == nil ||
		strings.Contains(err.Error(), secretCanary) {
		t.Errorf("credentials that cannot be parsed: %v", err)
	}
	if value, err := apps.Value(t.Context(), "production"); err != nil || value.Reveal() != "two:"+secretCanary {
		t.Errorf("they replaced the good ones, or %v", err)
	}
	if _, err := apps.Application(t.Context(), "sandbox"); !errors.Is(err, rotation.ErrNoApplication) {
		t.Errorf("another environment: %v", err)
	}
	if found, err := apps.Environments(t.Context()); err != nil || !slices.Equal(found, []string{"production"}) {
		t.Errorf("environments %q, %v", found, err)
	}
}
