package procore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// Company is a company of GET /rest/v1.0/companies.
type Company struct {
	ID   string `json:"id"`
	Name string `json:"name"` // printable characters only
}

// nameLimit bounds the length of a company's name, in characters.
const nameLimit = 80

// Companies lists the companies that a token can see. The API answers before the app is
// installed anywhere. A service account's token needs the company that it works in; it is
// empty for a user's. This spends nothing.
func (i *Issuer) Companies(ctx context.Context, app rotation.Application, access token.Secret,
	company string) ([]Company, error) {
	got, err := i.get(ctx, app.APIURL+"/rest/v1.0/companies", access, company)
	if err == nil && got.status != http.StatusOK {
		err = got.unexpected()
	}
	if err != nil {
		return nil, fmt.Errorf("listing the companies of %s: %w", app.Environment, err)
	}
	var listed []struct {
		ID   identifier `json:"id"`
		Name string     `json:"name"`
	}
	if json.Unmarshal(got.body, &listed) != nil {
		return nil, errors.New("the answer of /rest/v1.0/companies is not a list in JSON")
	}
	companies := []Company{}
	for _, one := range listed {
		if _, err := strconv.ParseInt(string(one.ID), 10, 64); err == nil {
			companies = append(companies, Company{string(one.ID), printable(one.Name)})
		}
	}
	return companies, nil
}

// printable removes what a terminal could obey.
func printable(name string) string {
	visible := []rune(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, name))
	return string(visible[:min(len(visible), nameLimit)])
}
