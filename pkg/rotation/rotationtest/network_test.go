package rotationtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// A ledger and a secret store behind a network, as small as they can be, to run the
// Repeats suites on.

func TestNetworkLedger(t *testing.T) {
	open := func(t *testing.T, transport http.RoundTripper) rotation.Ledger {
		return &remoteLedger{serve(t, transport, (&ledgerServer{nonces: map[token.Connection]string{}}).answer)}
	}
	TestLedgerRepeats(t, open)
	TestLedger(t, func(t *testing.T) rotation.Ledger { return open(t, http.DefaultTransport) })
}

func TestNetworkSecretStore(t *testing.T) {
	open := func(t *testing.T, transport http.RoundTripper) rotation.SecretStore {
		return &remoteSecretStore{serve(t, transport, (&secretStoreServer{}).answer)}
	}
	TestSecretStoreRepeats(t, open)
	TestSecretStore(t, func(t *testing.T) rotation.SecretStore { return open(t, http.DefaultTransport) })
}

// call is one request, and one answer, of both.
type call struct {
	Method        string                  `json:",omitempty"`
	Connection    token.Connection        `json:",omitzero"`
	Revision      string                  `json:",omitempty"`
	Nonce         string                  `json:",omitempty"`
	Limit         int                     `json:",omitempty"`
	Now           time.Time               `json:",omitzero"`
	ID            string                  `json:",omitempty"`
	Value         string                  `json:",omitempty"`
	Change        *rotation.Change        `json:",omitempty"`
	TokenResponse *rotation.TokenResponse `json:",omitempty"`

	Error       string
	Record      *rotation.Record `json:",omitempty"`
	Responses   []rotation.TokenResponse
	Connections []token.Connection
	Events      []rotation.Event
	Records     []rotation.Record
	Revisions   []string
	Infos       []rotation.VersionInfo
}

var sentinels = []error{rotation.ErrConflict, rotation.ErrNoSecret, rotation.ErrNoVersion, rotation.ErrVersionTaken,
	rotation.ErrNotCurrent, rotation.ErrSecretDeleted, rotation.ErrVersionLimit}

// remote sends calls, and sends them again after a connection reset.
type remote struct {
	client *http.Client
	url    string
}

func serve(t *testing.T, transport http.RoundTripper, answer func(call) (call, error)) remote {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var request call
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			http.Error(w, "not a call", http.StatusBadRequest)
			return
		}
		response, err := answer(request)
		for _, sentinel := range sentinels {
			if errors.Is(err, sentinel) {
				response.Error = sentinel.Error()
			}
		}
		if err != nil && response.Error == "" {
			response.Error = "refused"
		}
		_, _ = w.Write(encode(response))
	}))
	t.Cleanup(server.Close)
	return remote{&http.Client{Transport: transport}, server.URL}
}

func (r remote) send(ctx context.Context, c call) (answer call, err error) {
	for range 3 {
		request := must(http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(encode(c))))
		response, err := r.client.Do(request)
		if err != nil && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return answer, err
		}
		defer response.Body.Close()
		if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
			return answer, err
		}
		for _, sentinel := range sentinels {
			if answer.Error == sentinel.Error() {
				return answer, sentinel
			}
		}
		if answer.Error != "" {
			return answer, errors.New(answer.Error)
		}
		return answer, nil
	}
	return answer, errors.New("three connections were reset")
}

// ledgerServer keeps the nonce of the last write of each row: the conflict of
// a write that comes again is itself.
type ledgerServer struct {
	Ledger
	mu     sync.Mutex
	nonces map[token.Connection]string
}

func (s *ledgerServer) answer(c call) (answer call, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx := context.Background()
	switch c.Method {
	case "Load":
		var record rotation.Record
		record, answer.Responses, err = s.Load(ctx, c.Connection)
		answer.Record, answer.Revision = &record, record.Revision
	case "Due":
		answer.Connections, err = s.Due(ctx, c.Now)
	case "Write":
		c.Change.Record.Revision = c.Revision
		answer.Revision, err = s.Write(ctx, *c.Change)
		if errors.Is(err, rotation.ErrConflict) && s.nonces[c.Connection] == c.Nonce {
			record, _, loadErr := s.Load(ctx, c.Connection)
			return call{Revision: record.Revision}, loadErr
		}
		if err == nil {
			s.nonces[c.Connection] = c.Nonce
		}
	case "SaveResponse":
		err = s.SaveResponse(ctx, *c.TokenResponse)
	case "History":
		answer.Events, err = s.History(ctx, c.Connection, c.Limit)
	case "Remove":
		err = s.Remove(ctx, rotation.Record{Connection: c.Connection, Revision: c.Revision})
	case "List":
		answer.Records, err = s.List(ctx)
		for _, record := range answer.Records {
			answer.Revisions = append(answer.Revisions, record.Revision)
		}
	}
	return answer, err
}

type remoteLedger struct{ remote }

func (l *remoteLedger) Load(ctx context.Context, c token.Connection) (rotation.Record, []rotation.TokenResponse,
	error) {
	answer, err := l.send(ctx, call{Method: "Load", Connection: c})
	if err != nil {
		return rotation.Record{}, nil, err
	}
	answer.Record.Revision = answer.Revision
	return *answer.Record, answer.Responses, nil
}

func (l *remoteLedger) Due(ctx context.Context, now time.Time) ([]token.Connection, error) {
	answer, err := l.send(ctx, call{Method: "Due", Now: now})
	return answer.Connections, err
}

func (l *remoteLedger) Write(ctx context.Context, change rotation.Change) (string, error) {
	answer, err := l.send(ctx, call{Method: "Write", Connection: change.Record.Connection,
		Revision: change.Record.Revision, Nonce: rand.Text(), Change: &change})
	return answer.Revision, err
}

func (l *remoteLedger) SaveResponse(ctx context.Context, m rotation.TokenResponse) error {
	_, err := l.send(ctx, call{Method: "SaveResponse", TokenResponse: &m})
	return err
}

func (l *remoteLedger) History(ctx context.Context, c token.Connection, limit int) ([]rotation.Event, error) {
	answer, err := l.send(ctx, call{Method: "History", Connection: c, Limit: limit})
	return answer.Events, err
}

func (l *remoteLedger) Remove(ctx context.Context, rec rotation.Record) error {
	_, err := l.send(ctx, call{Method: "Remove", Connection: rec.Connection, Revision: rec.Revision})
	return err
}

func (l *remoteLedger) List(ctx context.Context) ([]rotation.Record, error) {
	answer, err := l.send(ctx, call{Method: "List"})
	for n, revision := range answer.Revisions {
		answer.Records[n].Revision = revision
	}
	return answer.Records, err
}

type secretStoreServer struct{ SecretStore }

func (s *secretStoreServer) answer(c call) (answer call, err error) {
	ctx, value := context.Background(), token.NewSecret(c.Value)
	var version rotation.Version
	switch c.Method {
	case "Current":
		version, err = s.Current(ctx, c.Connection)
	case "Version":
		version, err = s.Version(ctx, c.Connection, c.ID)
	case "Versions":
		answer.Infos, err = s.Versions(ctx, c.Connection)
	case "Create":
		err = s.Create(ctx, c.Connection, c.ID, value)
	case "Put":
		err = s.Put(ctx, c.Connection, c.ID, value)
	case "Promote":
		err = s.Promote(ctx, c.Connection, c.ID, c.Revision)
	}
	answer.ID, answer.Value = version.ID, version.Value.Reveal()
	return answer, err
}

type remoteSecretStore struct{ remote }

func (v *remoteSecretStore) version(ctx context.Context, c call) (rotation.Version, error) {
	answer, err := v.send(ctx, c)
	return rotation.Version{ID: answer.ID, Value: token.NewSecret(answer.Value)}, err
}

func (v *remoteSecretStore) Current(ctx context.Context, c token.Connection) (rotation.Version, error) {
	return v.version(ctx, call{Method: "Current", Connection: c})
}

func (v *remoteSecretStore) Version(ctx context.Context, c token.Connection, id string) (rotation.Version, error) {
	return v.version(ctx, call{Method: "Version", Connection: c, ID: id})
}

func (v *remoteSecretStore) Versions(ctx context.Context, c token.Connection) ([]rotation.VersionInfo, error) {
	answer, err := v.send(ctx, call{Method: "Versions", Connection: c})
	return answer.Infos, err
}

func (v *remoteSecretStore) Create(ctx context.Context, c token.Connection, id string, value token.Secret) error {
	_, err := v.send(ctx, call{Method: "Create", Connection: c, ID: id, Value: value.Reveal()})
	return err
}

func (v *remoteSecretStore) Put(ctx context.Context, c token.Connection, id string, value token.Secret) error {
	_, err := v.send(ctx, call{Method: "Put", Connection: c, ID: id, Value: value.Reveal()})
	return err
}

func (v *remoteSecretStore) Promote(ctx context.Context, c token.Connection, id, replaces string) error {
	_, err := v.send(ctx, call{Method: "Promote", Connection: c, ID: id, Revision: replaces})
	return err
}
