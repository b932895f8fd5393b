package embedded

import (
	"context"
	"errors"
)

// Examine reads the whole database and reports any damage that SQLite finds.
func (s *Store) Examine(ctx context.Context) error {
	const what = "examining the database"
	var verdict string
	if err := s.db.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&verdict); err != nil {
		return s.fault(what, err)
	}
	if verdict != "ok" {
		return s.fault(what, errors.New("it is damaged: "+verdict))
	}
	return nil
}
