package embedded

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
)

// SlotSize is what one answer takes in the reserve.
const SlotSize = slotSize

// HoldLock keeps the database locked from when it closes held until release is closed.
func HoldLock(ctx context.Context, s *Store, held, release chan struct{}) error {
	return s.write(ctx, "holding the lock", func(*sql.Tx) error {
		close(held)
		<-release
		return nil
	})
}

// Fill makes the store find its disk full, as far as the database is concerned, until
// Empty. It is for one connection to the database, which must stay the same.
func Fill(ctx context.Context, s *Store) error {
	var pages int
	if err := s.db.QueryRowContext(ctx, `PRAGMA page_count`).Scan(&pages); err != nil {
		return err
	}
	return limit(ctx, s, pages)
}

// Empty ends Fill.
func Empty(ctx context.Context, s *Store) error { return limit(ctx, s, 1<<30) }

func limit(ctx context.Context, s *Store, pages int) error {
	var limited int
	if err := s.db.QueryRowContext(ctx, fmt.Sprintf(`PRAGMA max_page_count = %d`, pages)).Scan(&limited); err != nil {
		return err
	}
	if limited != pages {
		return fmt.Errorf("the limit is %d pages, not %d", limited, pages)
	}
	return nil
}

// Pragmas reads settings of several connections, one after the other, each of them new.
func Pragmas(ctx context.Context, s *Store, connections int, names ...string) ([]map[string]string, error) {
	var all []map[string]string
	for range connections {
		values, err := pragmas(ctx, s, names)
		if err != nil {
			return nil, err
		}
		all = append(all, values)
	}
	return all, nil
}

func pragmas(ctx context.Context, s *Store, names []string) (map[string]string, error) {
	c, err := s.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for _, name := range names {
		var value string
		if err := c.QueryRowContext(ctx, `PRAGMA `+name).Scan(&value); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		values[name] = value
	}
	err = c.Raw(func(any) error { return driver.ErrBadConn }) // the pool replaces it
	if !errors.Is(err, driver.ErrBadConn) {
		return nil, err
	}
	return values, nil
}
