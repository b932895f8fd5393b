package rotationtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func similarSecrets(t *testing.T, v *secretStoreUser) {
	names := []string{"sandbox/a", "sandbox/ab", "sandbox/a-b", "sandbox/a-", "sandbox-a/b", "sandbo/xa"}
	for n, name := range names {
		v.create(must(token.ParseConnection(name)), n)
	}
	for n, name := range names {
		v.isCurrent(must(token.ParseConnection(name)), n)
		v.holds(must(token.ParseConnection(name)), n)
	}
	_, err := v.Current(t.Context(), must(token.ParseConnection("sandbox/abc")))
	refuses(t, "Current of a name that continues another", err, rotation.ErrNoSecret)
	v.put(must(token.ParseConnection("sandbox/a")), 9)
	_, err = v.Version(t.Context(), must(token.ParseConnection("sandbox/ab")), id(9))
	refuses(t, "Version of another connection", err, rotation.ErrNoVersion)
}

func largeValue(t *testing.T, v *secretStoreUser) {
	large := token.NewSecret(strings.Repeat("0123456789abcdef", 65536/16))
	if err := v.Create(t.Context(), acme, token.VersionID(large), large); err != nil {
		t.Fatalf("creating a secret of 65,536 bytes: %v", err)
	}
	if got, err := v.Current(t.Context(), acme); err != nil || got.Value != large {
		t.Errorf("65,536 bytes did not come back as they went (%v)", err)
	}
}

func anyText(t *testing.T, v *secretStoreUser) {
	v.create(acme, 1)
	odd := token.NewSecret("{\"a\":\"<&>\\u0000 \t é 😀 ' \\\\ %s $1\"}\n")
	if err := v.Put(t.Context(), acme, token.VersionID(odd), odd); err != nil {
		t.Fatal(err)
	}
	if got, err := v.Version(t.Context(), acme, token.VersionID(odd)); err != nil || got.Value != odd {
		t.Errorf("the text did not come back as it went (%v)", err)
	}
}

func secretStoreErrorsDiscloseNothing(t *testing.T, v *secretStoreUser) {
	mine, others := token.NewSecret("canary-mine-5b1c"), token.NewSecret("canary-others-77aa")
	taken := token.VersionID(others)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	errs := []error{v.Put(t.Context(), acme, taken, mine)}
	if err := v.Create(t.Context(), acme, taken, others); err != nil {
		t.Fatalf("creating %s: %v", acme, err)
	}
	tooLarge := token.NewSecret(strings.Repeat(mine.Reveal(), 8000))
	errs = append(errs,
		v.Create(t.Context(), acme, taken, mine),
		v.Put(t.Context(), acme, taken, mine),
		v.Put(cancelled, acme, token.VersionID(mine), mine),
		v.Put(t.Context(), acme, token.VersionID(tooLarge), tooLarge),
		v.Promote(t.Context(), acme, id(1), taken))
	for n, err := range errs {
		if text := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(text, "canary") {
			t.Errorf("error %d discloses a value", n)
		}
	}
	if errs[0] == nil || errs[1] == nil || errs[2] == nil || errs[3] == nil {
		t.Errorf("calls that had to be refused were not: %v", errs)
	}
}

func cancelledSecretStore(t *testing.T, v *secretStoreUser) {
	v.create(acme, 1)
	v.put(acme, 2)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Current(ctx, acme); err == nil {
		t.Error("Current: no error")
	}
	if _, err := v.Version(ctx, acme, id(1)); err == nil {
		t.Error("Version: no error")
	}
	if _, err := v.Versions(ctx, acme); err == nil {
		t.Error("Versions: no error")
	}
	if err := v.Put(ctx, acme, id(3), value(3)); err == nil {
		t.Error("Put: no error")
	}
	if err := v.Promote(ctx, acme, id(2), id(1)); err == nil || errors.Is(err, rotation.ErrNotCurrent) {
		t.Errorf("Promote: %v", err)
	}
	v.isCurrent(acme, 1)
	v.holds(acme, 1, 2)
}
