package rotationtest

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// The rules of Secrets Manager that the contract of rotation.SecretStore does not ask for.

func TestVersionLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &secretStoreUser{t, &SecretStore{}}
		v.create(acme, 0)
		for n := 1; n < maxVersions; n++ {
			v.put(acme, n)
		}
		refuses(t, "one version too many", v.Put(t.Context(), acme, id(100), value(100)), rotation.ErrVersionLimit)
		v.put(acme, 99) // a repetition needs no room
		time.Sleep(24*time.Hour - time.Second)
		refuses(t, "one too many a second before the day is over", v.Put(t.Context(), acme, id(100), value(100)),
			rotation.ErrVersionLimit)
		time.Sleep(time.Second)
		v.put(acme, 100)
		v.isCurrent(acme, 0) // the oldest, but it has a label
		_, err := v.Version(t.Context(), acme, id(1))
		refuses(t, "the version that made room", err, rotation.ErrNoVersion)
	})
}

func TestPreviousFollows(t *testing.T) {
	v := &secretStoreUser{t, &SecretStore{}}
	v.create(acme, 1)
	v.put(acme, 2)
	v.promote(acme, 2, 1)
	v.labeled(acme, previous, 1)
	v.promote(acme, 1, 2)
	v.labeled(acme, previous, 2)
}

func TestPendingStaysOrIsDropped(t *testing.T) {
	for drop, want := range map[bool][]string{false: {current, pending}, true: {current}} {
		v := &secretStoreUser{t, &SecretStore{DropPending: drop}}
		v.create(acme, 1)
		v.put(acme, 2)
		v.promote(acme, 2, 1)
		for _, info := range v.versions(acme) {
			if info.ID == id(2) && !slices.Equal(info.Labels, want) {
				t.Errorf("with DropPending %t the current version has %v", drop, info.Labels)
			}
		}
	}
}

func TestLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secrets := &SecretStore{Lag: 500 * time.Millisecond}
		v := &secretStoreUser{t, secrets}
		v.create(acme, 1)
		_, err := v.Current(t.Context(), acme)
		refuses(t, "Current right after Create", err, rotation.ErrNoVersion)
		time.Sleep(time.Second)
		v.put(acme, 2)
		v.promote(acme, 2, 1)
		if got, _ := v.Current(t.Context(), acme); got.ID != id(1) {
			t.Error("a read by label saw a move at once")
		}
		v.holds(acme, 1, 2) // by id nothing is delayed
		time.Sleep(time.Second)
		v.isCurrent(acme, 2)
	})
}

func TestStaleReads(t *testing.T) {
	secrets := &SecretStore{}
	v := &secretStoreUser{t, secrets}
	v.create(acme, 1)
	v.put(acme, 2)
	v.promote(acme, 2, 1)
	secrets.Gate = Gates(Always("secrets.Current", Before, Fault{Kind: Stale}),
		Always("secrets.Version", Before, Fault{Kind: Stale}), Always("secrets.Versions", Before, Fault{Kind: Stale}))
	if got, err := v.Current(t.Context(), acme); err != nil || got.ID != id(1) {
		t.Errorf("a stale read by label gave %q, %v", got.ID, err)
	}
	_, err := v.Version(t.Context(), acme, id(2))
	refuses(t, "a stale read of the newest version", err, rotation.ErrNoVersion)
	if n := len(v.versions(acme)); n != 1 {
		t.Errorf("a stale list has %d versions", n)
	}
}

func TestDeletedSecret(t *testing.T) {
	secrets := &SecretStore{}
	v := &secretStoreUser{t, secrets}
	v.create(acme, 1)
	secrets.Delete(acme)
	_, err := v.Current(t.Context(), acme)
	refuses(t, "Current", err, rotation.ErrSecretDeleted)
	_, err = v.Version(t.Context(), acme, id(1))
	refuses(t, "Version", err, rotation.ErrSecretDeleted)
	_, err = v.Versions(t.Context(), acme)
	refuses(t, "Versions", err, rotation.ErrSecretDeleted)
	refuses(t, "Create", v.Create(t.Context(), acme, id(1), value(1)), rotation.ErrSecretDeleted)
	refuses(t, "Put", v.Put(t.Context(), acme, id(2), value(2)), rotation.ErrSecretDeleted)
	refuses(t, "Promote", v.Promote(t.Context(), acme, id(1), id(1)), rotation.ErrSecretDeleted)
	secrets.Restore(acme)
	v.isCurrent(acme, 1)
	secrets.Purge(acme)
	_, err = v.Current(t.Context(), acme)
	refuses(t, "Current of a purged secret", err, rotation.ErrNoSecret)
}

func TestFirstVersionOfAnEmptySecret(t *testing.T) {
	secrets := &SecretStore{}
	secrets.MakeEmpty(acme)
	v := &secretStoreUser{t, secrets}
	_, err := v.Current(t.Context(), acme)
	refuses(t, "Current", err, rotation.ErrNoVersion)
	v.put(acme, 1)
	v.isCurrent(acme, 1)
	v.labeled(acme, pending, 1)
}

func TestByHand(t *testing.T) {
	secrets := &SecretStore{}
	v := &secretStoreUser{t, secrets}
	v.create(acme, 1)
	v.put(acme, 2)
	v.promote(acme, 2, 1)
	if err := secrets.RollBack(t.Context(), acme, id(1)); err != nil {
		t.Fatal(err)
	}
	v.isCurrent(acme, 1)
	if err := secrets.Edit(t.Context(), acme, value(7)); err != nil {
		t.Fatal(err)
	}
	v.isCurrent(acme, 7)
	v.labeled(acme, pending, 2)
	if err := secrets.RollBack(t.Context(), token.Connection{Environment: "a", Name: "b"}, id(1)); err == nil {
		t.Error("a secret that is not there was rolled back")
	}
}

func TestOversizedAndMisnamed(t *testing.T) {
	v := &SecretStore{}
	if err := v.Create(t.Context(), acme, "short", value(1)); err == nil {
		t.Error("an id of five characters was accepted")
	}
	large := token.NewSecret(string(make([]byte, maxValue+1)))
	if err := v.Create(t.Context(), acme, token.VersionID(large), large); err == nil {
		t.Error("65,537 bytes were accepted")
	}
}
