package embedded_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func value(n int) (string, token.Secret) {
	return fmt.Sprintf("%032d", n), token.NewSecret(fmt.Sprintf("value %d", n))
}

// rotate puts version n and makes it current in place of version n-1.
func rotate(t *testing.T, v rotation.SecretStore, n int) {
	t.Helper()
	id, content := value(n)
	if err := v.Put(t.Context(), acme, id, content); err != nil {
		t.Fatal(err)
	}
	replaces, _ := value(n - 1)
	if err := v.Promote(t.Context(), acme, id, replaces); err != nil {
		t.Fatal(err)
	}
}

// One rotation an hour for five days: the newest hundred versions without a label stay,
// and a burst of younger ones all stay, however many.
func TestOldVersionsGo(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		secrets := openStore(t, dir).SecretStore()
		id, content := value(0)
		if err := secrets.Create(t.Context(), acme, id, content); err != nil {
			t.Fatal(err)
		}
		n := 0
		for range 130 {
			time.Sleep(time.Hour)
			n++
			rotate(t, secrets, n)
		}
		versions, err := secrets.Versions(t.Context(), acme)
		if err != nil || len(versions) < 100 || len(versions) > 104 { // 100, the labelled, and those of between two puts
			t.Fatalf("%d versions after %d, %v", len(versions), n, err)
		}
		gone, _ := value(1)
		if _, err := secrets.Version(t.Context(), acme, gone); !errors.Is(err, rotation.ErrNoVersion) {
			t.Errorf("the oldest version: %v", err)
		}
		before := n
		for range 110 {
			time.Sleep(time.Second)
			n++
			rotate(t, secrets, n)
		}
		for m := before; m <= n; m++ {
			id, want := value(m)
			if got, err := secrets.Version(t.Context(), acme, id); err != nil || got.Value != want {
				t.Fatalf("version %d: %v", m, err)
			}
		}
		current, err := secrets.Current(t.Context(), acme)
		if id, want := value(n); err != nil || current.ID != id || current.Value != want {
			t.Errorf("current %s, %v", current.ID, err)
		}
	})
}

// A pending version that was never promoted keeps its place however old it gets.
func TestLabelledVersionsStay(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		secrets := openStore(t, dir).SecretStore()
		first, content := value(0)
		if err := secrets.Create(t.Context(), acme, first, content); err != nil {
			t.Fatal(err)
		}
		for n := 1; n < 110; n++ { // pending moves on, current stays on the oldest
			time.Sleep(25 * time.Hour)
			id, content := value(n)
			if err := secrets.Put(t.Context(), acme, id, content); err != nil {
				t.Fatal(err)
			}
		}
		current, err := secrets.Current(t.Context(), acme)
		if err != nil || current.ID != first {
			t.Errorf("current %s, %v", current.ID, err)
		}
		versions, err := secrets.Versions(t.Context(), acme)
		if err != nil {
			t.Fatal(err)
		}
		newest, oldest := versions[0], versions[len(versions)-1]
		if want, _ := value(109); newest.ID != want || !slices.Equal(newest.Labels, []string{"AWSPENDING"}) {
			t.Errorf("newest %+v", newest)
		}
		if oldest.ID != first || !slices.Equal(oldest.Labels, []string{"AWSCURRENT"}) ||
			!oldest.CreatedAt.Equal(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("oldest %+v", oldest)
		}
	})
}

// Secrets are listed by connection, but for those that are to be deleted.
func TestConnectionsWithSecrets(t *testing.T) {
	store := openStore(t, t.TempDir())
	secrets := store.SecretStore()
	beta := token.Connection{Environment: "production", Name: "beta"}
	id, content := value(0)
	for _, c := range []token.Connection{beta, acme} {
		if err := secrets.Create(t.Context(), c, id, content); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := secrets.Connections(t.Context()); err != nil || !slices.Equal(got, []token.Connection{acme, beta}) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := store.Deletions().Schedule(t.Context(), beta, 7*24*time.Hour); err != nil {
		t.Fatal(err)
	}
	if got, err := secrets.Connections(t.Context()); err != nil || !slices.Equal(got, []token.Connection{acme}) {
		t.Errorf("%v, %v", got, err)
	}
}
