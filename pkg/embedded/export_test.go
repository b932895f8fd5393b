package embedded

import (
	"context"
	"database/sql"
)

// HoldLock keeps the database locked from when it closes held until release is closed.
func HoldLock(ctx context.Context, s *Store, held, release chan struct{}) error {
	return s.write(ctx, "holding the lock", func(*sql.Tx) error {
		close(held)
		<-release
		return nil
	})
}
