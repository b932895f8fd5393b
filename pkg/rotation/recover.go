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

// escrowPrefix begins the id of a secret store version that keeps an answer because the
// ledger did not take it. Escrow never becomes AWSCURRENT.
const escrowPrefix = "escrow-"

// escrowed is the value of an escrow version: the response unchanged, so that every copy
// is the same response. Its answer is sealed; nothing else in it is secret.
type escrowed struct {
	Escrow        int           `json:"escrow"` // format number
	TokenResponse TokenResponse `json:"mint"`
}

// escrow keeps m in the secret store.
func (t *reconciliation) escrow(ctx context.Context, m TokenResponse) error {
	raw, err := json.Marshal(escrowed{1, m})
	if err != nil {
		return err
	}
	value := token.NewSecret(string(raw))
	return t.run.secrets.Put(ctx, t.conn, escrowPrefix+token.VersionID(value), value)
}

// EscrowedResponse reads a response from an escrow version. Its bytes stay sealed.
func EscrowedResponse(v Version) (m TokenResponse, ok bool) {
	var e escrowed
	ok = strings.HasPrefix(v.ID, escrowPrefix) && json.Unmarshal([]byte(v.Value.Reveal()), &e) == nil && e.Escrow == 1
	return e.TokenResponse, ok
}

// recover searches for the answer to an attempt with an unknown result. load has read
// the responses in the ledger, so recover reads the secret store.
func (t *reconciliation) recover(ctx context.Context) (*ConnectionReport, error) {
	a := t.rec.Attempt
	if a != nil && a.ID == t.refusedAttempt {
		a.Refused = true // the next write stores it
	}
	seen, err := t.readSecret(ctx)
	if err != nil {
		return t.secretFailure(ctx, Recover, err)
	}
	if seen.adopt != nil {
		return nil, t.adopt(ctx, *seen.adopt)
	}
	stored, unread, err := t.storedResponses(ctx, t.notOlder)
	if err != nil {
		return t.secretFailure(ctx, Recover, err)
	}
	found := slices.DeleteFunc(stored, func(m TokenResponse) bool {
		return !successor(t.rec, m) || has(t.responses, m.Key)
	})
	if len(found) > 0 {
		for range found { // escrow counts as a put
			t.rec.Puts = append(t.recentPuts(), t.engine.clock().Unix())
		}
		return nil, t.write(ctx, Change{Copy: found})
	}
	if unread != nil {
		return t.versionUnread(ctx, unread)
	}
	t.searched = true
	t.rec.forget(func(f Failure) bool { return f.Step == Recover })
	switch {
	case a != nil && a.Refused:
		return nil, t.tokenRefused(ctx)
	case a != nil && t.rec.Status == NeedsConsent && a.ID != t.presented &&
		!t.now.Before(t.engine.settings.attemptEnd(*a, t.now).Add(t.engine.settings.Quiet)):
		t.rec.Attempt = nil
		t.rec.Refusal.unanswered(t.now)
		return nil, t.write(ctx, Change{History: []Event{{Kind: "ended", Attempt: a.ID,
			Detail: "its answer was lost, and no successor is saved anywhere"}}})
	case t.rec.Status == NeedsConsent && !t.rec.Refusal.presents() && !t.force: // until tomorrow
		if t.rec.Refusal == nil {
			t.rec.Refusal = &Refusal{At: t.now.UTC(), Tries: len(retryAfter)}
		}
		t.rec.Refusal.schedule(t.now)
		return nil, t.write(ctx, Change{})
	}
	return nil, nil
}

// versionUnread: a version that may contain the successor cannot be read. Nothing is
// presented until it can be read. After three failures it is a configuration error,
// because only a person can fix it.
func (t *reconciliation) versionUnread(ctx context.Context, cause error) (*ConnectionReport, error) {
	f := t.rec.failure(Recover, ResponseKey{})
	if f == nil || f.Class != classConfig && f.Count < 3 {
		return t.failure(ctx, Recover, ResponseKey{}, classStore, 0, cause)
	}
	return t.failure(ctx, Recover, ResponseKey{}, classConfig, 0,
		fmt.Errorf("%w: it may contain the new token pair, so tokenturn presents no refresh token: "+
			"make the version readable again (is its KMS key disabled?), or invite the person again with "+
			"`tokenturn connection invite %s`", cause, t.conn))
}

// tokenRefused: the issuer refused the refresh token, and a complete search found no
// successor. The next sweep notifies people. The token is presented again by the
// schedule, because the server may be wrong. A response that arrives later still wins.
func (t *reconciliation) tokenRefused(ctx context.Context) error {
	event := Event{Kind: "needs_consent", Attempt: t.rec.Attempt.ID,
		Detail: "invalid_grant, and no successor is saved anywhere",
		Spent:  t.rec.Attempt.Fingerprint}
	t.rec.Attempt = nil
	if t.rec.Status == NeedsConsent {
		event.Kind, event.Detail = "refused", "invalid_grant again"
		return t.write(ctx, Change{History: []Event{event}})
	}
	t.rec.Status, t.rec.NoticePending = NeedsConsent, true
	t.rec.Refusal = &Refusal{At: t.engine.clock().UTC()}
	t.rec.Refusal.schedule(t.engine.clock())
	t.rec.forget(func(f Failure) bool { return f.Response == (ResponseKey{}) && f.Step != Revoke })
	return t.write(ctx, Change{History: []Event{event}})
}

// storedResponses reads the responses in the wanted versions of the secret. unread says
// why some versions could not be read.
func (t *reconciliation) storedResponses(ctx context.Context,
	which func([]VersionInfo) func(VersionInfo) bool) (responses []TokenResponse, unread, err error) {
	var versions []VersionInfo
	err = within(ctx, 2*storeTimeout, func(ctx context.Context) (err error) {
		versions, err = t.run.secrets.Versions(ctx, t.conn)
		return err
	})
	if errors.Is(err, ErrNoSecret) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("listing the versions of %s: %w", t.conn, err)
	}
	wanted := which(versions)
	for _, v := range versions {
		if v.ID == t.rec.Published || !wanted(v) {
			continue
		}
		m, ok, err := t.storedResponse(ctx, v.ID)
		if err != nil {
			unread = errors.Join(unread, err)
		} else if ok && !has(responses, m.Key) {
			responses = append(responses, m)
		}
	}
	return responses, unread, nil
}

// notOlder selects the versions that are not older than the current pair, because an
// older one cannot be its successor. It compares with both known times of the pair,
// because clocks differ.
func (t *reconciliation) notOlder(versions []VersionInfo) func(VersionInfo) bool {
	if t.rec.Current == nil {
		return func(VersionInfo) bool { return true }
	}
	since := t.rec.Current.IssuedAt
	for _, v := range versions {
		if v.ID == t.rec.Published && v.CreatedAt.Before(since) {
			since = v.CreatedAt
		}
	}
	since = since.Add(-5 * time.Minute)
	return func(v VersionInfo) bool { return v.CreatedAt.After(since) }
}

func escrowOnly([]VersionInfo) func(VersionInfo) bool { return isEscrow }

func isEscrow(v VersionInfo) bool { return strings.HasPrefix(v.ID, escrowPrefix) }

// storedResponse reads one version. ok is false for a value that is neither escrow nor a
// document of this connection and stack.
func (t *reconciliation) storedResponse(ctx context.Context, id string) (m TokenResponse, ok bool, err error) {
	var v Version
	err = within(ctx, storeTimeout, func(ctx context.Context) error {
		v, err = t.run.secrets.Version(ctx, t.conn, id)
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
	return m, m.Connection == t.conn && m.Stack == t.engine.settings.Stack, nil
}
