//go:build conformance

package conformance

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/attributevalue"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// traffic is what the wiretap saw the functions do, as operations.
type traffic struct {
	s        *stress
	versions map[string]place                 // of documents that were put, by id
	moves    map[string][]porcupine.Operation // of AWSCURRENT, by connection
	tokens   map[string][]porcupine.Operation // by fingerprint
	attempts map[string][]attempt             // by fingerprint, in the order of their begin
}

// attempt is the first write that names it.
type attempt struct {
	id    string
	who   string // access key
	began time.Time
}

func (s *stress) traffic() *traffic {
	t := &traffic{s: s, versions: map[string]place{}, moves: map[string][]porcupine.Operation{},
		tokens: map[string][]porcupine.Operation{}, attempts: map[string][]attempt{}}
	calls, _ := s.tap.since(0)
	var posts []call
	for _, c := range calls {
		switch c.Name {
		case "CreateSecret", "PutSecretValue", "UpdateSecretVersionStage":
			t.secretCall(c)
		case "PutItem", "TransactWriteItems", "UpdateItem":
			t.tableCall(c)
		case "POST /oauth/token":
			posts = append(posts, c)
		}
	}
	for _, c := range posts { // once all saves are known
		t.presentation(c)
	}
	return t
}

// outcomeOf says what came of a write; "" if nothing was written.
func outcomeOf(c call) outcome {
	switch {
	case c.Fate == withheld, c.Reached && c.Status >= 400 && c.Status < 500:
		return ""
	case c.Reached && c.Status == http.StatusOK:
		return done
	}
	return unknown
}

// operation is what a call did, at the moments at which the wiretap saw it.
func (t *traffic) operation(c call, input any, came outcome) porcupine.Operation {
	client := slices.Index(t.s.workers, t.s.worker(c.Who))
	if client < 0 {
		client = workers // the callback function, or the one that handles queued messages
	}
	ended := t.s.at(c.Ended)
	switch {
	case came == unknown:
		ended = open
	case c.Fate == withheld:
		ended = t.s.at(c.Began)
	}
	return operation(client, input, came, t.s.at(c.Began), ended)
}

// secretCall notes a move of the label, or escrow.
func (t *traffic) secretCall(c call) {
	var in struct {
		Name, SecretID, ClientRequestToken, SecretString   string
		VersionStage, MoveToVersionID, RemoveFromVersionID string
		VersionStages                                      []string
	}
	t.s.must(json.Unmarshal(c.Body, &in))
	connection, ours := strings.CutPrefix(in.Name+in.SecretID, t.s.secretName(""))
	if !ours {
		return // app credentials
	}
	var kept struct {
		Response *tokenResponse `json:"mint"`
	}
	document, err := token.ParseDocument(token.NewSecret(in.SecretString))
	switch {
	case err == nil:
		t.versions[in.ClientRequestToken] = place{in.ClientRequestToken, document.Epoch, document.Generation}
	case json.Unmarshal([]byte(in.SecretString), &kept) == nil && kept.Response != nil:
		t.saved(c, *kept.Response)
	}
	m := move{in.RemoveFromVersionID, t.versions[in.MoveToVersionID]}
	switch {
	case c.Name == "CreateSecret":
		m.To = t.versions[in.ClientRequestToken]
	case c.Name == "PutSecretValue":
		if !slices.Equal(in.VersionStages, []string{"AWSPENDING"}) {
			t.s.t.Errorf("a version of %s was put with %v, want AWSPENDING alone", connection, in.VersionStages)
		}
		return
	case in.VersionStage != "AWSCURRENT":
		return
	}
	if came := outcomeOf(c); came != "" {
		t.moves[connection] = append(t.moves[connection], t.operation(c, m, came))
	}
}

// tokenResponse is what is read here of a stored one.
type tokenResponse struct {
	Parent string `json:"parent"`
	Key    struct {
		Attempt string `json:"attempt"`
	} `json:"key"`
}

// row is what is read here of an item.
type row struct {
	Response *tokenResponse `json:"mint"`
	Record   *struct {
		Attempt *struct {
			ID          string `json:"id"`
			Fingerprint string `json:"fingerprint"`
		} `json:"attempt"`
	} `json:"record"`
}

// tableCall notes attempts and saved answers. A copy of an answer that is saved already is an
// update; it brings nothing new.
func (t *traffic) tableCall(c call) {
	type put struct{ Item json.RawMessage }
	var in struct {
		put
		TransactItems []struct{ Put put }
	}
	t.s.must(json.Unmarshal(c.Body, &in))
	puts := []put{in.put}
	for _, action := range in.TransactItems {
		puts = append(puts, action.Put)
	}
	for _, p := range puts {
		if p.Item == nil {
			continue
		}
		item, err := attributevalue.UnmarshalMapJSON(p.Item)
		t.s.must(err)
		var r row
		byJSON := func(o *attributevalue.DecoderOptions) { o.TagKey = "json" }
		t.s.must(attributevalue.UnmarshalMapWithOptions(item, &r, byJSON))
		if r.Response != nil {
			t.saved(c, *r.Response)
		}
		if r.Record != nil && r.Record.Attempt != nil {
			t.begun(c, r.Record.Attempt.ID, r.Record.Attempt.Fingerprint)
		}
	}
}

func (t *traffic) saved(c call, m tokenResponse) {
	if came := outcomeOf(c); came != "" && m.Parent != "" { // a consent has no parent
		t.tokens[m.Parent] = append(t.tokens[m.Parent], t.operation(c, save{m.Key.Attempt}, came))
	}
}

// begun notes the first write that names an attempt. Later ones keep it.
func (t *traffic) begun(c call, id, fingerprint string) {
	known := slices.ContainsFunc(t.attempts[fingerprint], func(a attempt) bool { return a.id == id })
	if came := outcomeOf(c); came != "" && !known {
		t.attempts[fingerprint] = append(t.attempts[fingerprint], attempt{id, c.Who, c.Began})
		t.tokens[fingerprint] = append(t.tokens[fingerprint], t.operation(c, begin{id}, came))
	}
}

// presentation notes a POST that shows a refresh token to the issuer.
func (t *traffic) presentation(c call) {
	var in struct {
		RefreshToken string `json:"refresh_token"`
	}
	t.s.must(json.Unmarshal(c.Body, &in))
	if in.RefreshToken == "" {
		return // an authorization code
	}
	fingerprint := string(token.NewSecret(in.RefreshToken).Fingerprint())
	var by attempt // the last one before
	for _, a := range t.attempts[fingerprint] {
		if a.began.Before(c.Began) {
			by = a
		}
	}
	c.Who = by.who
	came := t.outcomeOfPresentation(c, fingerprint, by)
	t.tokens[fingerprint] = append(t.tokens[fingerprint], t.operation(c, present{}, came))
}

func (t *traffic) outcomeOfPresentation(c call, fingerprint string, by attempt) outcome {
	switch {
	case c.Fate == withheld, c.Status == http.StatusServiceUnavailable, c.Status == http.StatusTooManyRequests:
		return unspent
	case c.Fate == unanswered, !c.Reached:
		return unknown
	case c.Status == http.StatusBadRequest:
		return refused
	case c.Status == http.StatusOK && (t.isSaved(fingerprint, by) || !t.died(c)):
		return done
	}
	return unknown
}

// isSaved reports whether an answer is known to be in a store.
func (t *traffic) isSaved(fingerprint string, by attempt) bool {
	return slices.ContainsFunc(t.tokens[fingerprint], func(op porcupine.Operation) bool {
		return op.Input == save{by.id} && op.Output == done
	})
}

// died reports whether the process that made the call was killed before the end of its event, so
// that what it was answered may have died with it.
func (t *traffic) died(c call) bool {
	w := t.s.worker(c.Who)
	return w != nil && slices.ContainsFunc(w.events, func(e event) bool {
		return e.died && e.began.Before(c.Began) && c.Began.Before(e.ended)
	})
}
