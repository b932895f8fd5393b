package procoretest_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/token"
)

func TestMeAndCompanies(t *testing.T) {
	c := newClient(t)
	access, _ := c.pair()
	const company = "4264807"
	if got := c.get("/rest/v1.0/me", access); got.text != `{"id":160586,"login":"pat@example.com"}` {
		t.Errorf("%s", got.text)
	}
	if got := c.get("/rest/v1.0/me?company_id="+company, access, "Procore-Company-Id",
		company); got.get("name") != "Pat Example" {
		t.Errorf("%s", got.text)
	}
	if got := c.get("/rest/v1.0/me?company_id="+company, access); got.status != 400 ||
		got.text != "Missing Procore-Company-Id header!" {
		t.Errorf("%d %s", got.status, got.text)
	}
	if got := c.get("/rest/v1.0/me?company_id=1", access, "Procore-Company-Id", "1"); got.status != 403 {
		t.Errorf("a company of others: %d %s", got.status, got.text)
	}
	c.Uninstall(c.app.ClientID, 4264807)
	if got := c.get("/rest/v1.0/me?company_id="+company, access, "Procore-Company-Id", company); got.status != 403 ||
		got.text != `{"errors":["App is not connected to this company."]}` {
		t.Errorf("uninstalled: %d %s", got.status, got.text)
	}
	if got := c.get("/rest/v1.0/companies", access); got.status != 200 || !strings.Contains(got.text, company) {
		t.Errorf("%s", got.text)
	}
	if got := c.get("/rest/v1.0/companies", "unknown"); got.status != 401 {
		t.Errorf("%d", got.status)
	}
}

func TestServiceAccount(t *testing.T) {
	c := newClient(t)
	ask := map[string]string{"grant_type": "client_credentials", "client_id": c.app.ClientID,
		"client_secret": c.app.ClientSecret.Reveal()}
	c.refused(c.post("/oauth/token", ask), 401, "unauthorized_client")
	c.app.ServiceAccount = []int64{42}
	c.Register(c.app)
	c.refused(c.post("/oauth/token", c.with(ask, "client_secret", "wrong")), 401, "invalid_client")
	got := c.post("/oauth/token", ask)
	access := got.get("access_token")
	if got.status != 200 || access == "" || got.fields["refresh_token"] != nil || got.fields["expires_in"] != 5400.0 {
		t.Fatalf("%d %v", got.status, got.fields)
	}
	if info := c.get("/oauth/token/info", access); info.status != 200 || info.fields["resource_owner_id"] != nil {
		t.Errorf("%s", info.text)
	}
	for _, path := range []string{"/rest/v1.0/me", "/rest/v1.0/companies"} { // an app has an identity only in a company
		if got := c.get(path, access); got.status != 400 {
			t.Errorf("%s: %d %s", path, got.status, got.text)
		}
		if got := c.get(path, access, "Procore-Company-Id", "42"); got.status != 200 {
			t.Errorf("%s: %d %s", path, got.status, got.text)
		}
		if got := c.get(path, access, "Procore-Company-Id", "43"); got.status != 403 {
			t.Errorf("%s: %d %s", path, got.status, got.text)
		}
	}
	if again := c.post("/oauth/token", ask).get("access_token"); again == access || !c.Accepts(token.NewSecret(access)) {
		t.Error("a second token is not another one beside the first")
	}
	if n := len(c.Presentations()); n != 0 {
		t.Errorf("%d presentations counted, though nothing can be spent", n)
	}
}

func TestProjects(t *testing.T) {
	c := newClient(t)
	access, _ := c.pair()
	const company = "4264807"
	path, pages, listed := "/rest/v1.0/projects?company_id="+company+"&per_page=2", 0, 0
	for path != "" {
		got := c.get(path, access, "Procore-Company-Id", company)
		var projects []struct{ ID int }
		if err := json.Unmarshal([]byte(got.text), &projects); err != nil || got.status != 200 {
			t.Fatalf("%d %s: %v", got.status, got.text, err)
		}
		pages, listed, path = pages+1, listed+len(projects), ""
		if next, found := strings.CutSuffix(got.header.Get("Link"), `>; rel="next"`); found {
			path = strings.TrimPrefix(next, "<"+c.URL)
		}
	}
	if pages != 3 || listed != 5 {
		t.Errorf("%d projects on %d pages", listed, pages)
	}
	for path, want := range map[string]int{"/rest/v1.0/projects": 400, "/rest/v1.0/projects?company_id=1": 400} {
		if got := c.get(path, access, "Procore-Company-Id", company); got.status != want {
			t.Errorf("%s: %d %s", path, got.status, got.text)
		}
	}
	if got := c.get("/rest/v1.0/projects?company_id="+company, "unknown", "Procore-Company-Id",
		company); got.status != 401 {
		t.Errorf("unknown token: %d", got.status)
	}
}
