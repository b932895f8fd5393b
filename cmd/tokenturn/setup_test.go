package main

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Every step says what to do and how to tell that it is done, in every environment, for each
// kind of access and each store.
func TestEveryStepSaysWhatToDo(t *testing.T) {
	environments := []string{"demo"}
	for _, e := range procore.Environments() {
		environments = append(environments, e.Name)
	}
	for _, environment := range environments {
		for _, kind := range []access{userAccess, serviceAccount} {
			for _, inAWS := range []bool{false, true} {
				f := &setupFacts{conn: token.Connection{Environment: environment, Name: "acme"}, wanted: kind, isAWS: inAWS}
				f.redirects = redirectURIs(t.Context(), f, "https://localhost:1", nil)
				a := f.answer(func(text string) string { return text })
				if a.Complete || a.Next != stepApp || f.required() != 8 {
					t.Errorf("%s: complete %t, next %q of %d", environment, a.Complete, a.Next, f.required())
				}
				for _, s := range a.Steps {
					if s.Title == "" || s.Found == "" || s.DoneWhen == "" || len(s.Do) == 0 && !s.over() ||
						slices.Contains(s.Do, "") {
						t.Errorf("%s, %s: %+v", environment, kind, s)
					}
					text := strings.Join(append(s.Do, s.Title, s.Found, s.DoneWhen), " ")
					if strings.Contains(text, "%!") || strings.Contains(text, "  ") || environment != "sandbox" &&
						strings.Contains(text, "Sandbox App Version Key") {
						t.Errorf("%s, %s: %q", environment, kind, text)
					}
				}
			}
		}
	}
}

// A token without a company: the steps do not guess which one is meant.
func TestWhichCompany(t *testing.T) {
	active := rotation.Record{Revision: "1", Status: rotation.Active}
	for name, test := range map[string]struct {
		companies []procore.Company
		company   string
		health    procore.Health
		want      setupState
	}{
		"none":      {nil, "", procore.Works, stepProblem},
		"several":   {[]procore.Company{{ID: "1"}, {ID: "2"}}, "", procore.Works, stepTodo},
		"named":     {[]procore.Company{{ID: "1"}, {ID: "2"}}, "2", procore.Works, stepDone},
		"no access": {nil, "3", procore.NoAccess, stepProblem},
		"down":      {nil, "3", procore.Unavailable, stepLater},
	} {
		f := &setupFacts{conn: token.Connection{Environment: "sandbox", Name: "acme"}, rec: active, probed: true,
			companies: test.companies, company: test.company, probe: procore.Probe{Health: test.health, Detail: "detail"}}
		if got := f.installStep(); got.State != test.want {
			t.Errorf("%s: %s, %s", name, got.State, got.Found)
		}
	}
}

// The address of `serve` has to be that of the redirect URI.
func TestWhichServe(t *testing.T) {
	const start = "start tokenturn serve --addr localhost:39710 in another terminal"
	for served, want := range map[string]string{
		"":                       "no server answers there yet: " + start,
		"http://localhost:39710": "no server answers there yet: " + start,
		"http://localhost:39720": "no server answers there: tokenturn serve runs at http://localhost:39720; stop it, and " +
			start,
	} {
		f := &setupFacts{conn: token.Connection{Environment: "demo", Name: "acme"}, served: served}
		f.credentials.RedirectURI = "http://localhost:39710/callback/demo"
		got := redirectURIs(t.Context(), f, cmp.Or(served, localURL), nil)[linkRedirect]
		if got.State != stepTodo || got.Found != want {
			t.Errorf("served at %q: %s, %s", served, got.State, got.Found)
		}
	}
}
