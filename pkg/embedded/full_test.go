package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// disk is the place of a store, with a given size of room.
type disk interface {
	leave(room int64) error // from now on
	free() error            // as much as there is
	refusal() string        // part of what an attempt that cannot begin says
}

// figures count how attempts on a disk with little room ended.
type figures struct{ notBegun, saved int }

func (f figures) String() string { return fmt.Sprintf("%d not begun, %d saved", f.notBegun, f.saved) }

// onFullDisk begins attempts with each size of room, on a store that is new or was used, and
// saves answers of several sizes. An attempt that could begin must be able to save its answer.
func onFullDisk(ctx context.Context, dir string, d disk, rooms []int64, stores ...bool) (all figures, err error) {
	for _, room := range rooms {
		for _, size := range []int{500, 24 << 10, 256<<10 + 100} {
			for _, used := range stores {
				one, err := attemptOnFullDisk(ctx, filepath.Join(dir, "store"), d, room, size, used)
				if err = errors.Join(err, d.free(), os.RemoveAll(filepath.Join(dir, "store"))); err != nil {
					return all, fmt.Errorf("room for %d bytes, an answer of %d, used before: %t: %w", room, size, used, err)
				}
				all.notBegun, all.saved = all.notBegun+one.notBegun, all.saved+one.saved
			}
		}
	}
	return all, nil
}

func attemptOnFullDisk(ctx context.Context, dir string, d disk, room int64, size int, used bool) (
	f figures, err error) {
	s, err := embedded.Open(ctx, dir)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	other, err := embedded.Open(ctx, dir)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, other.Close()) }()
	if used {
		for range 3 {
			if err := rotateOnce(ctx, s.Ledger()); err != nil {
				return f, err
			}
		}
	} else if _, err := s.Ledger().Write(ctx, rotation.Change{Record: rotation.Record{Connection: acme}}); err != nil {
		return f, err
	}
	record, before, err := s.Ledger().Load(ctx, acme)
	if err != nil {
		return f, err
	}

	if err := d.leave(room); err != nil {
		return f, err
	}
	was := record.Revision
	record.Attempt = &rotation.Attempt{ID: "full", BegunAt: time.Now(), Until: time.Now().Add(time.Minute)}
	revision, err := s.Ledger().Write(ctx, rotation.Change{Record: record})
	if err != nil {
		return figures{notBegun: 1}, isNotBegun(ctx, other, was, d.refusal(), err)
	}
	record.Revision = revision
	answer := numbered(9)
	answer.Key.Attempt, answer.Sealed = "full", bytes.Repeat([]byte{'a'}, size)
	if err := s.Ledger().SaveResponse(ctx, answer); err != nil {
		return f, fmt.Errorf("an attempt began, and its answer is lost: %w", err)
	}
	want := len(before) + 1
	if err := holds(ctx, other, want, answer); err != nil {
		return f, fmt.Errorf("on the full disk: %w", err)
	}
	if err := d.free(); err != nil {
		return f, err
	}
	record.Attempt = nil
	if _, err := other.Ledger().Write(ctx, rotation.Change{Record: record}); err != nil {
		return f, fmt.Errorf("with room again: %w", err)
	}
	return figures{saved: 1}, holds(ctx, s, want, answer)
}

// isNotBegun checks that the row is unchanged and that the error says what to do.
func isNotBegun(ctx context.Context, s *embedded.Store, revision, says string, refusal error) error {
	record, _, err := s.Ledger().Load(ctx, acme)
	if err != nil {
		return err
	}
	if record.Revision != revision || record.Attempt != nil || errors.Is(refusal, rotation.ErrConflict) {
		return fmt.Errorf("an attempt did not begin (%w), and the row is %+v", refusal, record)
	}
	if !strings.Contains(refusal.Error(), says) {
		return fmt.Errorf("an attempt did not begin, and it says: %w", refusal)
	}
	return nil
}

func holds(ctx context.Context, s *embedded.Store, n int, answer rotation.TokenResponse) error {
	_, responses, err := s.Ledger().Load(ctx, acme)
	if err != nil {
		return err
	}
	for _, m := range responses {
		if m.Key == answer.Key && bytes.Equal(m.Sealed, answer.Sealed) && len(responses) == n {
			return nil
		}
	}
	return fmt.Errorf("the answer is not among the %d responses", len(responses))
}

// steps returns the numbers from first to last.
func steps(first, last, step int64) (all []int64) {
	for n := first; n <= last; n += step {
		all = append(all, n)
	}
	return all
}
