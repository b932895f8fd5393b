package main

import (
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// A file to import is taken whole, or refused with errors that name lines and quote nothing.
func FuzzReadImports(f *testing.F) {
	for _, seed := range []string{
		`{"connection":"sandbox/acme","refresh_token":"CANARY"}`,
		`{"connection":"sandbox/acme","refresh_token":"'CANARY'","company":"4264807"}` + "\n\n" +
			`{"connection":"sandbox/b","refresh_token":"CANARY"}`,
		`{"connection":"sandbox/acme","refresh_token":"CANARY","company_id":"1"}`,
		`{"connection":"../acme","refresh_token":"CANARY"}`, `{"refresh_token":"CANARY"}`, `["CANARY"]`, "CANARY",
		"\xef\xbb\xbf{}", "\x00", "",
		`{"connection":"sandbox/acme","refresh_token":"` + strings.Repeat("CANARY", 20_000) + `"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, file string) {
		all, err := readImports(strings.NewReader(file))
		if err != nil {
			if strings.Contains(file, "CANARY") && strings.Contains(err.Error(), "CANARY") {
				t.Errorf("the error quotes the file: %v", err)
			}
			return
		}
		names, tokens := map[token.Connection]bool{}, map[token.Secret]bool{}
		for _, one := range all {
			if _, err := refreshToken(one.Refresh); err != nil || one.Connection.IsZero() || one.Company != "" &&
				!companyForm.MatchString(one.Company) {
				t.Errorf("%v with company %q is imported: %v", one.Connection, one.Company, err)
			}
			names[one.Connection], tokens[one.Refresh] = true, true
		}
		if len(all) == 0 || len(names) != len(all) || len(tokens) != len(all) {
			t.Errorf("%d are imported, to %d connections, with %d tokens", len(all), len(names), len(tokens))
		}
	})
}
