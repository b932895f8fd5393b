package rotationtest

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// TestSecretStore is the contract of rotation.SecretStore. Each call of open returns an empty
// secret store in which reads by label are not delayed.
func TestSecretStore(t *testing.T, open func(t *testing.T) rotation.SecretStore) {
	for name, test := range sorted(map[string]func(*testing.T, *secretStoreUser){
		"nothing is there before Create":                  noSecret,
		"Create makes the current version":                createSecret,
		"Create of the same again changes nothing":        createSecretTwice,
		"Create over another version is refused":          createSecretOver,
		"Put is pending and leaves the current alone":     putIsPending,
		"Put moves AWSPENDING":                            putMovesPending,
		"Put of the same again changes nothing":           putTwice,
		"Put of other content under an id is refused":     putOver,
		"Promote moves AWSCURRENT from the named version": promote,
		"Promote from another version is refused":         promoteFromOther,
		"Promote of an unknown version is refused":        promoteUnknown,
		"Promote to where the label is, is a success":     promoteTwice,
		"Promote can go back":                             promoteBack,
		"versions without labels can be listed and read":  unlabeled,
		"of many promotions from one version one wins":    onePromotionWins,
		"of many contents under one id one wins":          onePutWins,
		"of many creators one wins":                       oneCreateWins,
		"connections with similar names are separate":     similarSecrets,
		"values of 64 KiB survive":                        largeValue,
		"any text survives":                               anyText,
		"errors do not disclose values":                   secretStoreErrorsDiscloseNothing,
		"a cancelled context is an error":                 cancelledSecretStore,
	}) {
		t.Run(name, func(t *testing.T) { test(t, &secretStoreUser{t, open(t)}) })
	}
}

// secretStoreUser is a secret store for tests. It ends the test if a call fails that must
// succeed.
type secretStoreUser struct {
	t *testing.T
	rotation.SecretStore
}

// value and id name the nth version of a test.
func value(n int) token.Secret { return token.NewSecret(fmt.Sprintf(`{"version":%d}`, n)) }
func id(n int) string          { return token.VersionID(value(n)) }

func (v *secretStoreUser) create(c token.Connection, n int) {
	v.t.Helper()
	if err := v.Create(v.t.Context(), c, id(n), value(n)); err != nil {
		v.t.Fatalf("creating %s: %v", c, err)
	}
}

func (v *secretStoreUser) put(c token.Connection, n int) {
	v.t.Helper()
	if err := v.Put(v.t.Context(), c, id(n), value(n)); err != nil {
		v.t.Fatalf("putting version %d of %s: %v", n, c, err)
	}
}

func (v *secretStoreUser) promote(c token.Connection, n, replaces int) {
	v.t.Helper()
	if err := v.Promote(v.t.Context(), c, id(n), id(replaces)); err != nil {
		v.t.Fatalf("promoting version %d of %s: %v", n, c, err)
	}
}

// isCurrent asserts that readers of c see version n.
func (v *secretStoreUser) isCurrent(c token.Connection, n int) {
	v.t.Helper()
	got, err := v.Current(v.t.Context(), c)
	if err != nil || got.ID != id(n) || got.Value != value(n) {
		v.t.Errorf("AWSCURRENT of %s is on version %q (%v), want version %d", c, got.ID, err, n)
	}
	v.labeled(c, current, n)
}

// labeled asserts that only version n has the label.
func (v *secretStoreUser) labeled(c token.Connection, label string, n int) {
	v.t.Helper()
	var on []string
	for _, info := range v.versions(c) {
		if slices.Contains(info.Labels, label) {
			on = append(on, info.ID)
		}
	}
	if !slices.Equal(on, []string{id(n)}) {
		v.t.Errorf("%s of %s is on %v, want version %d (%s)", label, c, on, n, id(n))
	}
}

func (v *secretStoreUser) versions(c token.Connection) []rotation.VersionInfo {
	v.t.Helper()
	infos, err := v.Versions(v.t.Context(), c)
	if err != nil {
		v.t.Fatalf("listing versions of %s: %v", c, err)
	}
	return infos
}

// holds asserts that c has exactly these versions, each readable by its id.
func (v *secretStoreUser) holds(c token.Connection, numbers ...int) {
	v.t.Helper()
	var got, want []string
	for _, info := range v.versions(c) {
		got = append(got, info.ID)
		if info.CreatedAt.IsZero() {
			v.t.Errorf("version %s of %s has no time of creation", info.ID, c)
		}
	}
	for _, n := range numbers {
		want = append(want, id(n))
		if found, err := v.Version(v.t.Context(), c, id(n)); err != nil || found.ID != id(n) || found.Value != value(n) {
			v.t.Errorf("reading version %d of %s: %v", n, c, err)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		v.t.Errorf("%s has versions %v, want %v", c, got, want)
	}
}

func refuses(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

func noSecret(t *testing.T, v *secretStoreUser) {
	_, err := v.Current(t.Context(), acme)
	refuses(t, "Current", err, rotation.ErrNoSecret)
	_, err = v.Version(t.Context(), acme, id(1))
	refuses(t, "Version", err, rotation.ErrNoSecret)
	_, err = v.Versions(t.Context(), acme)
	refuses(t, "Versions", err, rotation.ErrNoSecret)
	refuses(t, "Put", v.Put(t.Context(), acme, id(1), value(1)), rotation.ErrNoSecret)
	refuses(t, "Promote", v.Promote(t.Context(), acme, id(1), id(2)), rotation.ErrNoSecret)
	_, err = v.Current(t.Context(), acme)
	refuses(t, "Current afterwards", err, rotation.ErrNoSecret)
}

func createSecret(t *testing.T, v *secretStoreUser) {
	v.create(acme, 1)
	v.isCurrent(acme, 1)
	v.holds(acme, 1)
	_, err := v.Version(t.Context(), acme, id(2))
	refuses(t, "Version of an unknown id", err, rotation.ErrNoVersion)
}

func createSecretTwice(t *testing.T, v *secretStoreUser) {
	v.create(acme, 1)
	v.create(acme, 1)
	v.put(acme, 2)
	v.promote(acme, 2, 1)
	v.create(acme, 1) // a late repetition
	v.isCurrent(acme, 2)
	v.holds(acme, 1, 2)
}

func createSecretOver(t *testing.T, v *secretStoreUser) {
	v.create(acme, 1)
	refuses(t, "Create with another id", v.Create(t.Context(), acme, id(2), value(2)), rotation.ErrVersionTaken)
	refuses(t, "Create with other content", v.Create(t.Context(), acme, id(1), value(2)), rotation.ErrVersionTaken)
	v.isCurrent(acme, 1)
	v.holds(acme, 1)
}

func putIsPending(t *testing.T, v *secretStoreUser) {
	v.create(acme, 1)
	v.put(acme, 2)
	v.isCurrent(acme, 1)
	v.labeled(acme, pending, 2)
	v.holds(acme, 1, 2)
}

func putMovesPending(t *testing.T, v *secretStoreUser) {
	v.create(acme, 1)
	v.put(acme, 2)
	v.put(acme, 3)
	v.isCurrent(acme, 1)
	v.labeled(acme, pending, 3)
	v.holds(acme, 1, 2, 3)
}

func putTwice(t *testing.T, v *secretStoreUser) {
	v.create(acme, 1)
	v.put(acme, 2)
	v.put(acme, 2)
	v.labeled(acme, pending, 2)
	v.promote(acme, 2, 1)
	v.put(acme, 2)
	v.isCurrent(acme, 2)
	v.put(acme, 3)
	v.put(acme, 2) // a late repetition does not take the label back
	v.labeled(acme, pending, 3)
	v.isCurrent(acme, 2)
	v.put(acme, 1)
	v.labeled(acme, pending, 3)
	v.isCurrent(acme, 2)
	v.holds(acme, 1, 2, 3)
}

func putOver(t *testing.T, v *secretStoreUser) {
	v.create(acme, 1)
	v.put(acme, 2)
	refuses(t, "Put over a pending version", v.Put(t.Context(), acme, id(2), value(9)), rotation.ErrVersionTaken)
	v.promote(acme, 2, 1)
	refuses(t, "Put over the current version", v.Put(t.Context(), acme, id(2), value(9)), rotation.ErrVersionTaken)
	refuses(t, "Put over the previous version", v.Put(t.Context(), acme, id(1), value(9)), rotation.ErrVersionTaken)
	v.isCurrent(acme, 2)
	v.holds(acme, 1, 2)
}

func promote(t *testing.T, v *secretStoreUser) {
	v.create(acme, 1)
	for n := 2; n <= 5; n++ {
		v.put(acme, n)
		v.promote(acme, n, n-1)
		v.isCurrent(acme, n)
	}
	v.holds(acme, 1, 2, 3, 4, 5)
}

func promoteFromOther(t *testing.T, v *secretStoreUser) {
	v.create(acme, 1)
	v.put(acme, 2)
	v.put(acme, 3)
	v.promote(acme, 3, 1)
	for name, replaces := range map[string]string{"a former current": id(1), "itself": id(2), "an unknown one": id(9),
		"none": ""} {
		refuses(t, "Promote replacing "+name, v.Promote(t.Context(), acme, id(2), replaces), rotation.ErrNotCurrent)
	}
	v.isCurrent(acme, 3)
}

func promoteUnknown(t *testing.T, v *secretStoreUser) {
	v.create(acme, 1)
	refuses(t, "Promote", v.Promote(t.Context(), acme, id(2), id(1)), rotation.ErrNoVersion)
	v.isCurrent(acme, 1)
}

func promoteTwice(t *testing.T, v *secretStoreUser) {
	v.create(acme, 1)
	v.put(acme, 2)
	v.promote(acme, 2, 1)
	v.promote(acme, 2, 1)
	v.promote(acme, 2, 9)
	v.promote(acme, 2, 2)
	v.isCurrent(acme, 2)
}

func promoteBack(t *testing.T, v *secretStoreUser) {
	v.create(acme, 1)
	v.put(acme, 2)
	v.promote(acme, 2, 1)
	v.promote(acme, 1, 2)
	v.isCurrent(acme, 1)
	v.promote(acme, 2, 1)
	v.isCurrent(acme, 2)
}

func unlabeled(t *testing.T, v *secretStoreUser) {
	v.create(acme, 1)
	for n := 2; n <= 12; n++ {
		v.put(acme, n)
	}
	without := 0
	for _, info := range v.versions(acme) {
		if len(info.Labels) == 0 {
			without++
		}
	}
	if without != 10 {
		t.Errorf("%d versions have no label, want 10", without)
	}
	v.holds(acme, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
	v.promote(acme, 2, 1)
	v.isCurrent(acme, 2)
}

func onePromotionWins(t *testing.T, v *secretStoreUser) {
	v.create(acme, 0)
	now := 0
	for round := range 5 {
		first := 1 + 8*round
		for n := range 8 {
			v.put(acme, first+n)
		}
		winner := -1
		for n, r := range race(8, func(n int) (struct{}, error) {
			return struct{}{}, v.Promote(t.Context(), acme, id(first+n), id(now))
		}) {
			switch {
			case r.err == nil && winner >= 0:
				t.Errorf("both %d and %d replaced version %d", winner, first+n, now)
			case r.err == nil:
				winner = first + n
			default:
				refuses(t, "a loser's Promote", r.err, rotation.ErrNotCurrent)
			}
		}
		if winner < 0 {
			t.Fatal("nobody won")
		}
		now = winner
		v.isCurrent(acme, now)
	}
}

func onePutWins(t *testing.T, v *secretStoreUser) {
	v.create(acme, 1)
	contested := token.VersionID(token.NewSecret("contested"))
	var winner token.Secret
	for n, r := range race(8, func(n int) (struct{}, error) {
		return struct{}{}, v.Put(t.Context(), acme, contested, value(n))
	}) {
		switch {
		case r.err == nil && !winner.IsZero():
			t.Error("two contents were stored under one id")
		case r.err == nil:
			winner = value(n)
		default:
			refuses(t, "a loser's Put", r.err, rotation.ErrVersionTaken)
		}
	}
	got, err := v.Version(t.Context(), acme, contested)
	if err != nil || got.Value != winner {
		t.Errorf("the stored content is not the winner's (%v)", err)
	}
}

func oneCreateWins(t *testing.T, v *secretStoreUser) {
	winner := 0
	for n, r := range race(8, func(n int) (struct{}, error) {
		return struct{}{}, v.Create(t.Context(), acme, id(1+n), value(1+n))
	}) {
		switch {
		case r.err == nil && winner != 0:
			t.Error("two created the secret")
		case r.err == nil:
			winner = 1 + n
		default:
			refuses(t, "a loser's Create", r.err, rotation.ErrVersionTaken)
		}
	}
	v.isCurrent(acme, winner)
	v.holds(acme, winner)
}
