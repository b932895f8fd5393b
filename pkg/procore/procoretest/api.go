package procoretest

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// installation is an app in a company. Apps are installed everywhere until Uninstall.
type installation struct {
	client  string
	company int64
}

// bearer returns the access token of a request, by header or query (RFC 6750).
func bearer(r *http.Request) string {
	scheme, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") {
		return value
	}
	return r.URL.Query().Get("access_token")
}

// info serves GET /oauth/token/info.
func (h *Handler) info(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p, _ := h.use(bearer(r))
	if p == nil {
		const text = "The access token is invalid"
		a := jsonResponse(http.StatusUnauthorized, map[string]any{"error": "invalid_token", "error_description": text,
			"state": "unauthorized"})
		a.authenticate = authenticate("invalid_token", text)
		a.write(w)
		return
	}
	scope, left := "scope", "expires_in"
	if h.is(OldRelease) {
		scope, left = "scopes", "expires_in_seconds"
	}
	var owner any // null for an app's own token
	if p.user.ID != 0 {
		owner = p.user.ID
	}
	jsonResponse(http.StatusOK, map[string]any{"resource_owner_id": owner, scope: []string{},
		left: int64(p.expiresAt().Sub(h.now()) / time.Second), "application": map[string]string{"uid": p.client},
		"created_at": p.created.Unix()}).write(w)
}

// revoke serves POST /oauth/revoke. Either half of a pair ends both.
func (h *Handler) revoke(w http.ResponseWriter, r *http.Request) {
	params, err := parameters(r)
	if err != nil || params.repeated != "" {
		response{status: http.StatusBadRequest, contentType: "text/html"}.write(w)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.byAccess[params.get("token")]
	if p == nil {
		p = h.byRefresh[params.get("token")]
	}
	app, known := h.client(params)
	allowed := known && (p == nil || p.client == app.ClientID)
	if !allowed && !h.is(OldRelease) {
		jsonResponse(http.StatusForbidden, map[string]any{"error": "unauthorized_client",
			"error_description": "You are not authorized to revoke this token"}).write(w)
		return
	}
	if deaf := p == nil || h.is(ExpiredSurviveRevocation) && !h.now().Before(p.expiresAt()); allowed && !deaf {
		p.dead = true
	}
	jsonResponse(http.StatusOK, map[string]any{}).write(w)
}

// me serves GET /rest/v1.0/me, with or without a company.
func (h *Handler) me(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.authenticated(w, r)
	if p == nil {
		return
	}
	answer := map[string]any{"id": p.user.ID, "login": p.user.Login}
	company := r.URL.Query().Get("company_id")
	if own := p.user.ID == 0; own && company == "" { // an app has an identity only in a company
		company = r.Header.Get("Procore-Company-Id")
		answer["id"], answer["login"] = 1, "service-account@example.com"
		if !h.mayAct(w, r, p, company) {
			return
		}
	}
	if company != "" {
		if !h.mayAct(w, r, p, company) {
			return
		}
		answer["name"] = p.user.Name
	}
	jsonResponse(http.StatusOK, answer).write(w)
}

// companies serves GET /rest/v1.0/companies, which also answers before an app is installed.
func (h *Handler) companies(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.authenticated(w, r)
	if p == nil {
		return
	}
	if p.user.ID == 0 && !h.mayAct(w, r, p, r.Header.Get("Procore-Company-Id")) {
		return
	}
	list := []map[string]any{}
	for _, id := range p.user.Companies {
		list = append(list, map[string]any{"id": id, "name": "Company " + strconv.FormatInt(id, 10), "is_active": true})
	}
	jsonResponse(http.StatusOK, list).write(w)
}

// projectCount is the number of projects of every company.
const projectCount = 5

// projects serves GET /rest/v1.0/projects for a company, page by page
// (https://developers.procore.com/documentation/content/pagination).
func (h *Handler) projects(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.authenticated(w, r)
	query := r.URL.Query()
	if p == nil || !h.mayAct(w, r, p, query.Get("company_id")) {
		return
	}
	size, page := positive(query.Get("per_page"), 100), positive(query.Get("page"), 1)
	w.Header().Set("Total", strconv.Itoa(projectCount))
	w.Header().Set("Per-Page", strconv.Itoa(size))
	if page*size < projectCount {
		query.Set("page", strconv.Itoa(page+1))
		w.Header().Set("Link", "<http://"+r.Host+r.URL.Path+"?"+query.Encode()+`>; rel="next"`)
	}
	list := []map[string]any{}
	for id := (page-1)*size + 1; id <= min(page*size, projectCount); id++ {
		list = append(list, map[string]any{"id": id, "name": "Project " + strconv.Itoa(id), "active": true})
	}
	jsonResponse(http.StatusOK, list).write(w)
}

// positive reads a number of a query, up to a thousand.
func positive(text string, otherwise int) int {
	if n, err := strconv.Atoi(text); err == nil && n > 0 && n <= 1000 {
		return n
	}
	return otherwise
}

// authenticated answers 401, with an empty body and the reason in a header, if the token is not good.
func (h *Handler) authenticated(w http.ResponseWriter, r *http.Request) *pair {
	p, why := h.use(bearer(r))
	if p == nil {
		response{status: http.StatusUnauthorized, contentType: "text/html", authenticate: authenticate("invalid_token",
			why)}.write(w)
	}
	return p
}

// mayAct answers as Procore does if the token may not act in the company.
func (h *Handler) mayAct(w http.ResponseWriter, r *http.Request, p *pair, company string) bool {
	header := r.Header.Get("Procore-Company-Id")
	id, err := strconv.ParseInt(company, 10, 64)
	why := ""
	switch {
	case header == "":
		response{http.StatusBadRequest, "text/plain; charset=utf-8", "", "Missing Procore-Company-Id header!"}.write(w)
		return false
	case err != nil || header != company:
		response{http.StatusBadRequest, "text/plain; charset=utf-8", "",
			"Procore-Company-Id and company_id must be the same id"}.write(w)
		return false
	case h.uninstalled[installation{p.client, id}]:
		why = "App is not connected to this company."
	case !slices.Contains(p.user.Companies, id):
		why = "You do not have access to this company."
	default:
		return true
	}
	jsonResponse(http.StatusForbidden, map[string]any{"errors": []string{why}}).write(w)
	return false
}
