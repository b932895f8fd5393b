package embedded_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

const week = 7 * 24 * time.Hour

var other = token.Connection{Environment: "production", Name: "other"}

// allCalls makes every call of the secret store and says what each answered.
func allCalls(t *testing.T, v rotation.SecretStore) map[string]error {
	first, content := value(0)
	next, later := value(1)
	_, current := v.Current(t.Context(), acme)
	_, version := v.Version(t.Context(), acme, first)
	_, versions := v.Versions(t.Context(), acme)
	return map[string]error{"Current": current, "Version": version, "Versions": versions,
		"Create": v.Create(t.Context(), acme, first, content), "Put": v.Put(t.Context(), acme, next, later),
		"Promote": v.Promote(t.Context(), acme, first, first)}
}

func TestDeletion(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t, dir)
		secrets, deletions := store.SecretStore(), store.Deletions()
		id, content := value(0)
		for _, c := range []token.Connection{acme, other} {
			if err := secrets.Create(t.Context(), c, id, content); err != nil {
				t.Fatal(err)
			}
		}
		begun := time.Now()
		for range 2 { // the second time changes nothing
			at, err := deletions.Schedule(t.Context(), acme, week)
			if err != nil || at.Sub(begun) != week {
				t.Fatalf("scheduled for %v, %v", at, err)
			}
			time.Sleep(time.Hour)
		}
		for call, err := range allCalls(t, secrets) {
			if !errors.Is(err, rotation.ErrSecretDeleted) {
				t.Errorf("%s: %v", call, err)
			}
		}
		if got, err := secrets.Current(t.Context(), other); err != nil || got.Value != content {
			t.Errorf("another connection's secret: %v", err)
		}

		for range 2 {
			if err := deletions.Cancel(t.Context(), acme); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := secrets.Current(t.Context(), acme); err != nil || got.ID != id || got.Value != content {
			t.Errorf("restored: %v, %v", got.ID, err)
		}

		if _, err := deletions.Schedule(t.Context(), acme, week); err != nil {
			t.Fatal(err)
		}
		time.Sleep(week)
		if _, err := secrets.Current(t.Context(), acme); !errors.Is(err, rotation.ErrNoSecret) {
			t.Errorf("after its time: %v", err)
		}
		if err := deletions.Cancel(t.Context(), acme); !errors.Is(err, rotation.ErrNoSecret) {
			t.Errorf("Cancel after its time: %v", err)
		}
		next, other := value(7)
		if err := secrets.Create(t.Context(), acme, next, other); err != nil {
			t.Fatal(err)
		}
		if versions, err := secrets.Versions(t.Context(), acme); err != nil || len(versions) != 1 || versions[0].ID != next {
			t.Errorf("a new secret has versions %v, %v", versions, err)
		}
	})
}

// If a secret's recovery time ends while no process runs, it is gone from the file when the
// store is opened.
func TestDeletionOnOpening(t *testing.T) {
	dir := t.TempDir()
	store := openStore(t, dir)
	id, content := value(0)
	if err := store.SecretStore().Create(t.Context(), acme, id, content); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Deletions().Schedule(t.Context(), acme, -time.Second); err != nil {
		t.Fatal(err)
	}
	if err := openAndClose(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if err := store.Deletions().Cancel(t.Context(), acme); !errors.Is(err, rotation.ErrNoSecret) {
		t.Errorf("Cancel: %v", err)
	}
	if _, err := store.SecretStore().Versions(t.Context(), acme); !errors.Is(err, rotation.ErrNoSecret) {
		t.Errorf("Versions: %v", err)
	}
}

// A scheduled secret can be deleted before its time. Others stay.
func TestDeletionEndsAtOnce(t *testing.T) {
	store := openStore(t, t.TempDir())
	secrets, deletions := store.SecretStore(), store.Deletions()
	id, content := value(0)
	for _, c := range []token.Connection{acme, other} {
		if err := secrets.Create(t.Context(), c, id, content); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := deletions.Schedule(t.Context(), acme, week); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is none
		if err := deletions.End(t.Context(), acme); err != nil {
			t.Fatal(err)
		}
		if err := deletions.Cancel(t.Context(), acme); !errors.Is(err, rotation.ErrNoSecret) {
			t.Errorf("it can be restored: %v", err)
		}
	}
	if err := deletions.End(t.Context(), other); err == nil || !strings.Contains(err.Error(), "not scheduled") {
		t.Errorf("a secret in use: %v", err)
	}
	if _, err := secrets.Current(t.Context(), other); err != nil {
		t.Errorf("a secret in use is gone: %v", err)
	}
}

func TestDeletionOfNothing(t *testing.T) {
	deletions := openStore(t, t.TempDir()).Deletions()
	_, err := deletions.Schedule(t.Context(), acme, week)
	for call, err := range map[string]error{"Schedule": err, "Cancel": deletions.Cancel(t.Context(), acme)} {
		if !errors.Is(err, rotation.ErrNoSecret) || !strings.Contains(err.Error(), acme.String()) {
			t.Errorf("%s: %v", call, err)
		}
	}
}

// A store of schema 1 keeps what is in it.
func TestSchema1IsBroughtUpToDate(t *testing.T) {
	dir := t.TempDir()
	store, err := embedded.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	id, content := value(0)
	if err := errors.Join(store.SecretStore().Create(t.Context(), acme, id, content), store.Close()); err != nil {
		t.Fatal(err)
	}
	execute(t, filepath.Join(dir, embedded.DatabaseName),
		`DROP TABLE reserve; DROP TABLE deletion; PRAGMA user_version = 1`)
	for range 2 {
		store := openStore(t, dir)
		if got, err := store.SecretStore().Current(t.Context(), acme); err != nil || got.Value != content {
			t.Errorf("read %v", err)
		}
		if _, err := store.Deletions().Schedule(t.Context(), other, week); !errors.Is(err, rotation.ErrNoSecret) {
			t.Error(err)
		}
	}
}
