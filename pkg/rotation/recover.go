package rotation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// escrowPrefix begins the id of a secret store version that keeps an answer which the
// ledger would not take. Escrow never becomes AWSCURRENT.
const escrowPrefix = "escrow-"

// escrowed is the value of an escrow version: the response as it is, so every
// copier makes the same response. Its answer is sealed; nothing else in it is secret.
type escrowed struct {
	Escrow        int           `json:"escrow"` // number of this form
	TokenResponse TokenResponse `json:"mint"`
}

// escrow keeps m in the secret store.
func (t *turn) escrow(ctx context.Context, m TokenResponse) error {
	raw, err := json.Marshal(escrowed{1, m})
	if err != nil {
		return err
	}
	value := token.NewSecret(string(raw))
	return t.secrets.Put(ctx, t.conn, escrowPrefix+token.VersionID(value), value)
}

// EscrowedMint reads a secret store version that keeps an answer. Its bytes stay sealed.
func EscrowedResponse(v Version) (m TokenResponse, ok bool) {
	var e escrowed
	ok = strings.HasPrefix(v.ID, escrowPrefix) && json.Unmarshal([]byte(v.Value.Reveal()), &e) == nil && e.Escrow == 1
	return e.TokenResponse, ok
}

// look searches for what an attempt with an unknown end may have brought. The
// ledger's own responses were in the load; what is left is the secret store.
func (t *turn) look(ctx context.Context) (*ConnectionReport, error) {
	a := t.rec.Attempt
	if a != nil && a.ID == t.refusal {
		a.Refused = true // kept by whatever is written next
	}
	seen, err := t.readSecret(ctx)
	if err != nil {
		return t.secretFailure(ctx, Look, err)
	}
	if seen.adopt != nil {
		return nil, t.adopt(ctx, *seen.adopt)
	}
	stored, err := t.storedResponses(ctx, t.mayHoldAnswer)
	if err != nil {
		return t.secretFailure(ctx, Look, err)
	}
	found := slices.DeleteFunc(stored, func(m TokenResponse) bool { return !successor(t.rec, m) || t.has(m.Key) })
	if len(found) > 0 {
		for range found { // escrow was put, and counts
			t.rec.Puts = append(t.recentPuts(), t.clock().Unix())
		}
		return nil, t.write(ctx, Change{Copy: found})
	}
	if a != nil && a.Refused {
		return nil, t.giveUp(ctx)
	}
	t.looked = true
	return nil, nil
}

// giveUp: the issuer does not know the refresh token (any more), and after
// everything that may hold a successor was read again, that is the end of it
// until a person consents, or a response turns up after all. The next sweep that
// sees it tells people.
func (t *turn) giveUp(ctx context.Context) error {
	refused := Event{Kind: "needs_consent", Attempt: t.rec.Attempt.ID, Detail: "invalid_grant, and no successor is saved anywhere",
		Spent: t.rec.Attempt.Fingerprint}
	next := t.rec.clone() // nobody is told of what could not be written
	next.Attempt, next.Status, next.Failure, next.Untold = nil, NeedsConsent, nil, true
	next.DueAt = t.clock().Add(t.settings.Quiet)
	return t.engine.write(ctx, next, t.responses, Change{History: []Event{refused}})
}

// has reports whether the ledger has a live response of that key.
func (t *turn) has(key ResponseKey) bool {
	return slices.ContainsFunc(t.responses, func(m TokenResponse) bool { return m.Key == key })
}

// storedMints reads the responses that the wanted versions hold.
func (t *turn) storedResponses(ctx context.Context, wanted func(VersionInfo) bool) ([]TokenResponse, error) {
	var versions []VersionInfo
	err := within(ctx, 2*storeTimeout, func(ctx context.Context) (err error) {
		versions, err = t.secrets.Versions(ctx, t.conn)
		return err
	})
	if errors.Is(err, ErrNoSecret) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the versions of %s: %w", t.conn, err)
	}
	var responses []TokenResponse
	for _, v := range versions {
		if v.ID == t.rec.Published || !wanted(v) {
			continue
		}
		m, ok, err := t.storedResponse(ctx, v.ID)
		if err != nil {
			return nil, err
		}
		if ok {
			responses = append(responses, m)
		}
	}
	return responses, nil
}

// mayHoldAnswer: all escrow, and documents that are labelled or not older than
// the current pair.
func (t *turn) mayHoldAnswer(v VersionInfo) bool {
	young := t.rec.Current != nil && v.CreatedAt.After(t.rec.Current.SavedAt.Add(-5*time.Minute)) // clocks differ
	return isEscrow(v) || len(v.Labels) > 0 || young
}

func isEscrow(v VersionInfo) bool { return strings.HasPrefix(v.ID, escrowPrefix) }

// storedMint reads one version. A value that is neither escrow nor a document
// of this connection and stack is passed over.
func (t *turn) storedResponse(ctx context.Context, id string) (m TokenResponse, ok bool, err error) {
	var v Version
	err = within(ctx, storeTimeout, func(ctx context.Context) error {
		v, err = t.secrets.Version(ctx, t.conn, id)
		return err
	})
	if err != nil {
		return TokenResponse{}, false, fmt.Errorf("reading version %s of %s: %w", id, t.conn, err)
	}
	if kept, ok := EscrowedResponse(v); ok {
		m = kept
	} else if doc, err := token.ParseDocument(v.Value); err == nil {
		m = responseOf(doc)
	}
	return m, m.Connection == t.conn && m.Stack == t.settings.Stack, nil
}
