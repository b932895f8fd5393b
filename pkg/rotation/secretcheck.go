package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenturn/tokenturn/pkg/token"
)

// secretView is what checkSecret saw.
type secretView struct {
	absent  bool           // there is no secret
	current Version        // zero: the secret has no value yet
	adopt   *TokenResponse // a pair of this installation that the secret store has and the ledger lacks
	drift   string         // what is wrong, if AWSCURRENT is not on the version that the ledger published last
	foreign bool           // with drift: this program cannot have left the secret like this
}

// deletedSecretError is ErrSecretDeleted with what the operator has to do.
type deletedSecretError struct {
	conn  token.Connection
	cause error
}

func (e *deletedSecretError) Error() string {
	return fmt.Sprintf("the secret of %s is scheduled for deletion; if you still need it, run "+
		"`tokenturn connection undo %[1]s`", e.conn)
}

func (e *deletedSecretError) Unwrap() error { return e.cause }

// otherStackError: the secret belongs to another installation.
type otherStackError struct {
	c          token.Connection
	ours, seen string
}

func (e *otherStackError) Error() string {
	return fmt.Sprintf("the secret of %s belongs to installation %q, and this is %q: "+
		"give each installation its own secret prefix", e.c, e.seen, e.ours)
}

// CheckStack returns an error if r is the row of an installation other than ours.
func (r Record) CheckStack(ours string) error {
	if r.Revision == "" || r.Stack == ours {
		return nil
	}
	return &otherStackError{r.Connection, ours, r.Stack}
}

// rereadDelay is how long after an unexpected read by label the secret is read again,
// because reads by label may be stale.
const rereadDelay = 2 * time.Second

// checkSecret reads AWSCURRENT before anything is put or spent. If it does not show what
// the ledger published, it is read again after rereadDelay.
func (t *reconciliation) checkSecret(ctx context.Context) (secretView, error) {
	v, err := t.readSecret(ctx)
	if err != nil || v.drift == "" && v.adopt == nil {
		return v, err
	}
	select {
	case <-ctx.Done():
		return v, fmt.Errorf("reading the secret of %s again: %w", t.conn, ctx.Err())
	case <-time.After(rereadDelay):
	}
	return t.readSecret(ctx)
}

func (t *reconciliation) readSecret(ctx context.Context) (v secretView, err error) {
	err = within(ctx, storeTimeout, func(ctx context.Context) error {
		v.current, err = t.run.secrets.Current(ctx, t.conn)
		return err
	})
	switch {
	case errors.Is(err, ErrNoSecret):
		v.absent = true
		if t.rec.Published != "" {
			v.drift, v.foreign = "the secret is gone", true
		}
		return v, nil
	case errors.Is(err, ErrNoVersion):
		if t.rec.Published != "" {
			v.drift, v.foreign = "no version is AWSCURRENT", true
		}
		return v, nil
	case errors.Is(err, ErrSecretDeleted):
		return v, &deletedSecretError{t.conn, err}
	case err != nil:
		return v, fmt.Errorf("reading the secret of %s: %w", t.conn, err)
	}
	if v.current.ID == t.rec.Published || t.rec.Current != nil && v.current.ID == t.rec.Current.VersionID {
		return v, nil // by its id, the content is what was published
	}
	return t.compareSecret(ctx, v)
}

// compareSecret judges a version with AWSCURRENT that the ledger did not publish.
func (t *reconciliation) compareSecret(ctx context.Context, v secretView) (secretView, error) {
	doc, err := token.ParseDocument(v.current.Value)
	switch {
	case err != nil:
		v.drift, v.foreign = "its value is not a tokenturn document", true
		return v, nil
	case doc.Connection != t.conn:
		v.drift, v.foreign = fmt.Sprintf("it contains the document of %s, which readers of %s refuse", doc.Connection,
			t.conn), true
		return v, nil
	case doc.Stack != t.engine.settings.Stack:
		return v, &otherStackError{t.conn, t.engine.settings.Stack, doc.Stack}
	case !after(doc.Epoch, doc.Generation, t.rec.Epoch, t.rec.Generation):
		v.drift = fmt.Sprintf("AWSCURRENT is on generation %d.%d", doc.Epoch, doc.Generation)
		return v, nil
	}
	m := responseOf(doc)
	if _, err := t.open(ctx, m); errors.Is(err, ErrUnsealable) {
		v.drift, v.foreign = "AWSCURRENT claims a later generation that this installation did not seal", true
		return v, nil
	} else if err != nil {
		return v, err
	}
	v.adopt = &m
	return v, nil
}

// notifyOfDrift notifies people of a drift, once in a run.
func (t *reconciliation) notifyOfDrift(ctx context.Context, v secretView) {
	if !t.drifted {
		t.drifted = true
		t.engine.notify(ctx, NoticeDrift, t.conn, "The secret of %s does not show what tokenturn published: %s. "+
			"tokenturn restores it. Find out who changed it.", t.conn, v.drift)
	}
}

// responseOf rebuilds the response that a document shows.
func responseOf(doc token.Document) TokenResponse {
	return TokenResponse{Connection: doc.Connection, Key: ResponseKey{doc.Epoch, doc.Generation, doc.Attempt},
		Parent: doc.Parent, Source: Source(doc.Source), SavedAt: doc.SavedAt, State: Saved, Sealed: doc.SealedAnswer,
		APIURL: doc.APIURL, Company: doc.CompanyID, Stack: doc.Stack}
}

// adopt copies the pair that the secret store shows to the ledger and makes it current.
// The ledger is older than the secret store, for example after a backup was restored.
// Nothing is presented and nothing is put.
func (t *reconciliation) adopt(ctx context.Context, m TokenResponse) error {
	body, err := t.open(ctx, m)
	if err != nil {
		return err
	}
	pin := Pin{Environment: t.conn.Environment, Company: m.Company}
	if t.rec.Pin != nil {
		pin = *t.rec.Pin
	}
	next, err := t.engine.succeed(t.rec, m, t.engine.judge(m.Source, body).Pair, pin)
	if err != nil {
		return err
	}
	next.Published, next.Ancestor = next.Current.VersionID, nil
	change := Change{Copy: []TokenResponse{m}, History: []Event{{Kind: "adopted", Attempt: m.Key.Attempt,
		Detail: "the secret store was ahead of the ledger", ExpiresAt: next.Current.ExpiresAt}}}
	for _, old := range t.responses { // ancestors are spent, but of the same grant, so they are not revoked
		if old.Key.Epoch == m.Key.Epoch && old.Key.Generation < m.Key.Generation {
			change.Bury = append(change.Bury, old.Key)
		}
	}
	// Another run may have changed the row since this run loaded it. If not, people are
	// notified before the write, so that a crash does not cost the notice.
	now, _, err := t.engine.load(ctx, t.conn)
	if err != nil {
		return err
	}
	if now.Revision != t.rec.Revision {
		return ErrConflict
	}
	t.engine.notify(ctx, NoticeDrift, t.conn, "The ledger had an older pair than the secret of %s (was a table "+
		"restored from a backup?). tokenturn copies the pair of the secret to the ledger.", t.conn)
	t.rec = next
	if err := t.write(ctx, change); err != nil {
		return err
	}
	t.did = Recovered
	return nil
}
