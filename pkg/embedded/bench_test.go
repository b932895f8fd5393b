package embedded_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// BenchmarkRotation makes the ledger calls of one rotation: load, begin, load,
// save the answer, load, decide, load.
func BenchmarkRotation(b *testing.B) {
	s, err := embedded.Open(b.Context(), b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for b.Loop() {
		if err := rotateOnce(b.Context(), s.Ledger()); err != nil {
			b.Fatal(err)
		}
	}
}

func rotateOnce(ctx context.Context, l rotation.Ledger) error {
	record, responses, err := l.Load(ctx, acme)
	if err != nil {
		return err
	}
	record.Status = rotation.Active
	record.Attempt = attempt(fmt.Sprint("attempt ", record.Generation))
	if _, err := l.Write(ctx, rotation.Change{Record: record}); err != nil {
		return err
	}
	if record, _, err = l.Load(ctx, acme); err != nil {
		return err
	}
	answer := numbered(int(record.Generation) + 1)
	answer.Key.Attempt, answer.Sealed = record.Attempt.ID, answer.Sealed[:500]
	if err := l.SaveResponse(ctx, answer); err != nil {
		return err
	}
	if record, _, err = l.Load(ctx, acme); err != nil {
		return err
	}
	record.Attempt, record.Generation = nil, record.Generation+1
	decided := rotation.Event{At: time.Now(), Kind: "decided", Generation: record.Generation}
	change := rotation.Change{Record: record, History: []rotation.Event{decided}}
	for _, r := range responses {
		change.Bury = append(change.Bury, r.Key)
	}
	if _, err := l.Write(ctx, change); err != nil {
		return err
	}
	_, _, err = l.Load(ctx, acme)
	return err
}
