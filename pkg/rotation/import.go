package rotation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// ErrConnected: the connection has, or had, a consent of its own.
var ErrConnected = errors.New("the connection has a consent already")

// KnownTokenError says that a refresh token has been here before, so that
// presenting it again would end what it belongs to or could not succeed.
type KnownTokenError struct {
	Connection token.Connection // that has or had it
	Spent      bool             // false: it is that connection's current one
}

func (e *KnownTokenError) Error() string {
	if e.Spent {
		return fmt.Sprintf("%s had that refresh token before, and it is spent", e.Connection)
	}
	return fmt.Sprintf("%s has that very refresh token now", e.Connection)
}

// Archive is what the fingerprints of tokens are looked up in.
type Archive interface {
	// List returns every record.
	List(ctx context.Context) ([]Record, error)
	// History returns the newest events of c, newest first, at most limit.
	History(ctx context.Context, c token.Connection, limit int) ([]Event, error)
}

// wholeHistory is more events than a connection has in the time they are kept.
const wholeHistory = 100_000

// CheckImports looks for tokens that must not be imported: those that a connection
// has now, those that were imported anywhere before, and those that the
// connection itself is known to have spent. The errors are *KnownTokenError, by
// connection. What was spent elsewhere only its server knows.
func CheckImports(ctx context.Context, archive Archive, imports map[token.Connection]token.Secret) (map[token.Connection]error, error) {
	records, err := archive.List(ctx)
	if err != nil {
		return nil, err
	}
	problems := map[token.Connection]error{}
	for c, refresh := range imports {
		fingerprint := refresh.Fingerprint()
		for _, r := range records {
			switch {
			case r.Current != nil && r.Current.Fingerprint == fingerprint:
				problems[c] = &KnownTokenError{r.Connection, r.Status != Active}
			case slices.Contains(r.Imported, fingerprint):
				problems[c] = &KnownTokenError{r.Connection, true}
			}
		}
		events, err := archive.History(ctx, c, wholeHistory)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(events, func(e Event) bool { return e.Spent == fingerprint }) {
			problems[c] = &KnownTokenError{c, true}
		}
	}
	return problems, nil
}

// Import makes a refresh token that was obtained elsewhere the connection's
// current pair. It is only saved here; a Rotator redeems it. The connection must
// have no consent of its own, whose user a bare refresh token could not be
// compared with. ErrNotRegistered, ErrConnected; ErrSuperseded if the connection
// changed meanwhile.
func (s *Consents) Import(ctx context.Context, c token.Connection, refresh token.Secret, company string) error {
	rec, _, err := s.loadRow(ctx, c)
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
	m := x.mint(FromImport, body)
	m.Company = company
	if err := s.save(ctx, m); err != nil {
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
