package rotationtest

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func TestFollowUps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &FollowUps{}
		for op, delay := range map[string]time.Duration{"sweep": 2 * time.Minute, "publish": 0, "ensure": rotation.MaxDelay} {
			if err := f.Send(t.Context(), rotation.Request{Op: op}, delay); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Send(t.Context(), rotation.Request{Op: "late"}, rotation.MaxDelay+time.Second); err == nil {
			t.Error("a longer delay than SQS has was accepted")
		}
		var ops []string
		for !f.Next().IsZero() {
			time.Sleep(time.Until(f.Next()))
			for _, request := range f.Take() {
				ops = append(ops, fmt.Sprint(request.Op, " ", time.Now().Format("15:04")))
			}
		}
		if want := []string{"publish 00:00", "sweep 00:02", "ensure 00:15"}; !slices.Equal(ops, want) {
			t.Errorf("delivered %v, want %v", ops, want)
		}
	})
}

func TestApplications(t *testing.T) {
	a := &Applications{}
	if _, err := a.Application(t.Context(), "sandbox"); !errors.Is(err, rotation.ErrNoApplication) {
		t.Errorf("got %v", err)
	}
	a.Set(Sandbox)
	if app, err := a.Application(t.Context(), "sandbox"); err != nil || app != Sandbox {
		t.Errorf("got %v, %v", app, err)
	}
}

func TestBackup(t *testing.T) {
	ledger := &Ledger{}
	l := &ledgerUser{t, ledger}
	record := l.create(acme)
	l.save(response(1, 0, "a"))
	restore := ledger.Backup()
	record.Epoch = 1
	l.write(rotation.Change{Record: record, Bury: []rotation.ResponseKey{response(1, 0, "a").Key}})
	restore()
	loaded, responses := l.load(acme)
	if loaded.Epoch != 0 || len(responses) != 1 {
		t.Errorf("restored: %+v, %v", loaded, responses)
	}
}

func TestLaggingIndex(t *testing.T) {
	ledger := &Ledger{Gate: Always("ledger.Due", Before, Fault{Kind: Stale})}
	l := &ledgerUser{t, ledger}
	record := l.create(acme)
	record.DueAt = start
	l.write(rotation.Change{Record: record})
	if due := l.due(start); len(due) != 0 {
		t.Errorf("a lagging index shows %v", due)
	}
}

// The samples of the suite must have a value in every field, so that a field that
// is added to the types is noticed if a store forgets it.
func TestSamplesAreFull(t *testing.T) {
	full(t, "record", reflect.ValueOf(fullRecord()), "Revision")
	full(t, "response", reflect.ValueOf(fullResponse()))
}

func full(t *testing.T, path string, v reflect.Value, except ...string) {
	t.Helper()
	switch {
	case v.Kind() == reflect.Pointer && !v.IsNil():
		full(t, path, v.Elem(), except...)
	case v.Kind() == reflect.Struct && v.Type() != timeType:
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; !slices.Contains(except, name) {
				full(t, path+"."+name, v.Field(i), except...)
			}
		}
	case v.IsZero():
		t.Errorf("%s is not set in the sample", path)
	}
}

// Copies must share no memory with their originals.
func TestClonesAreDeep(t *testing.T) {
	record, m := fullRecord(), fullResponse()
	separate(t, "record", reflect.ValueOf(record), reflect.ValueOf(deepCopy(record)))
	separate(t, "response", reflect.ValueOf(m), reflect.ValueOf(deepCopy(m)))
}

func separate(t *testing.T, path string, a, b reflect.Value) {
	t.Helper()
	switch a.Kind() {
	case reflect.Pointer, reflect.Slice:
		if !a.IsNil() && a.Type() != reflect.TypeFor[*time.Location]() && a.Pointer() == b.Pointer() {
			t.Errorf("%s is shared", path)
		}
	case reflect.Struct:
		for i := range a.NumField() {
			separate(t, path+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i))
		}
	}
}

func TestDiscloses(t *testing.T) {
	secret := token.NewSecret(`canary+/<"é>=`)
	raw := secret.Reveal()
	for name, text := range map[string]string{
		"raw":    "a " + raw + " b",
		"query":  "?code=" + url.QueryEscape(raw),
		"path":   "/connect/" + url.PathEscape(raw),
		"JSON":   string(encode(map[string]string{"a": raw})),
		"hex":    hex.EncodeToString([]byte("a" + raw)),
		"base64": base64.StdEncoding.EncodeToString([]byte(raw)),
		"URL":    base64.URLEncoding.EncodeToString([]byte("?" + raw + "?")),
	} {
		if Discloses(text, secret) == "" {
			t.Errorf("%s: not found in %q", name, text)
		}
	}
	for before := range 6 {
		for after := range 6 {
			text := base64.StdEncoding.EncodeToString([]byte("abcdef"[:before] + raw + "ghijkl"[:after]))
			if Discloses(text, secret) == "" {
				t.Errorf("not found in base64 with %d bytes before and %d after it", before, after)
			}
		}
	}
	for _, text := range []string{"", string(secret.Fingerprint()), fmt.Sprint(secret), "canary"} {
		if form := Discloses(text, secret); form != "" {
			t.Errorf("found %s in %q", form, text)
		}
	}
}
