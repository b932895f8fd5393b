package embedded

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
)

// collect scans every row and closes rows.
func collect[T any](rows *sql.Rows, scan func(*sql.Rows) (T, error)) ([]T, error) {
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// scanText reads a row with one text column.
func scanText(rows *sql.Rows) (text string, err error) {
	err = rows.Scan(&text)
	return text, err
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// selectJSON decodes the one column of every row.
func selectJSON[T any](ctx context.Context, q querier, query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(rows *sql.Rows) (v T, err error) {
		var text []byte
		if err := rows.Scan(&text); err != nil {
			return v, err
		}
		if err := json.Unmarshal(text, &v); err != nil {
			return v, fmt.Errorf("decoding a row: %w", err)
		}
		return v, nil
	})
}

// expectOne returns the error otherwise unless exactly one row was changed.
func expectOne(result sql.Result, otherwise error) error {
	n, err := result.RowsAffected()
	if err != nil {
		return err
	}
	if n != 1 {
		return otherwise
	}
	return nil
}
