package rotation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// ErrConnected: the connection has or had a consent of its own.
var ErrConnected = errors.New("the connection has a consent already")

// KnownTokenError says that this installation already knows a refresh token.
// Presenting it again would break the connection that has it, or could not succeed.
type KnownTokenError struct {
	Connection token.Connection // the one that has or had it
	Spent      bool             // false: it is that connection's current one
}

func (e *KnownTokenError) Error() string {
	if e.Spent {
		return fmt.Sprintf("%s had that refresh token before, and it is spent", e.Connection)
	}
	return fmt.Sprintf("%s uses that refresh token now", e.Connection)
}

// Archive is searched for the fingerprints of tokens.
type Archive interface {
	// List returns every record.
	List(ctx context.Context) ([]Record, error)
	// History returns the newest events of c, newest first, at most limit.
	History(ctx context.Context, c token.Connection, limit int) ([]Event, error)
}

const (
	// wholeHistory is more events than a connection has in the time they are kept.
	wholeHistory = 100_000
	// readers is how many histories are read at once.
	readers = 8
)

// CheckImports finds the tokens that must not be imported: those that a connection has
// now, those that were imported before, and those that any connection is known to have
// spent, as far back as the histories go. The errors are *KnownTokenError, by the
// connection to import to. begin gets the number of histories to read. step is called
// after each one, never twice at a time.
func CheckImports(ctx context.Context, archive Archive, imports map[token.Connection]token.Secret,
	begin func(histories int) (step func())) (map[token.Connection]error, error) {
	records, err := archive.List(ctx)
	if err != nil {
		return nil, err
	}
	asked := map[token.Fingerprint][]token.Connection{}
	for c, refresh := range imports {
		asked[refresh.Fingerprint()] = append(asked[refresh.Fingerprint()], c)
	}
	problems := map[token.Connection]error{}
	known := func(fingerprint token.Fingerprint, by token.Connection, spent bool) {
		for _, c := range asked[fingerprint] {
			problems[c] = &KnownTokenError{by, spent}
		}
		delete(asked, fingerprint) // one place is enough to refuse it
	}
	for _, r := range records {
		if r.Current != nil {
			known(r.Current.Fingerprint, r.Connection, r.Status != Active)
		}
		for _, fingerprint := range r.Imported {
			known(fingerprint, r.Connection, true)
		}
	}
	step := begin(len(records))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	var mu sync.Mutex
	for _, r := range records {
		group.Go(func() error {
			events, err := archive.History(ctx, r.Connection, wholeHistory)
			mu.Lock()
			defer mu.Unlock()
			for _, e := range events {
				known(e.Spent, r.Connection, true)
			}
			step()
			return err
		})
	}
	return problems, group.Wait()
}

// Import makes a refresh token that was obtained elsewhere the current pair of the
// connection. It only saves the token; a Rotator redeems it. The connection must have no
// consent of its own, because the owner of a bare refresh token cannot be compared with
// the user of that consent. ErrNotRegistered, ErrConnected; ErrSuperseded if the
// connection changed meanwhile.
func (s *Consents) Import(ctx context.Context, c token.Connection, refresh token.Secret, company string) error {
	rec, _, err := s.engine.load(ctx, c)
	switch {
	case err != nil:
		return err
	case rec.Revision == "":
		return fmt.Errorf("%s: %w", c, ErrNotRegistered)
	case rec.Status == Active, rec.Pin != nil && rec.Pin.ResourceOwner != "":
		return fmt.Errorf("%s: %w", c, ErrConnected)
	}
	x, err := s.Prepare(ctx, c, rec.Epoch)
	if err != nil {
		return err
	}
	body, err := importBody(refresh)
	if err != nil {
		return err
	}
	m := x.response(FromImport, body)
	m.Company = company
	if _, err := s.engine.save(ctx, m, nil); err != nil {
		return err
	}
	_, err = s.adoptConsent(ctx, x, m, body)
	return err
}

// importBody gives a single refresh token the form of an answer.
func importBody(refresh token.Secret) (token.Secret, error) {
	raw, err := json.Marshal(map[string]string{"refresh_token": refresh.Reveal()})
	return token.NewSecret(string(raw)), err
}
