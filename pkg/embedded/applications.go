package embedded

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// ParseApplication reads the stored form of an environment's app credentials.
type ParseApplication func(environment string, value token.Secret) (rotation.Application, error)

// Applications keeps app credentials, one value per environment, encrypted
// under the key file.
type Applications struct {
	s     *Store
	parse ParseApplication
}

var _ rotation.Applications = Applications{}

// Applications returns the store's rotation.Applications, which parses stored values with parse.
func (s *Store) Applications(parse ParseApplication) Applications { return Applications{s, parse} }

// Application implements rotation.Applications.
func (a Applications) Application(ctx context.Context, environment string) (rotation.Application, error) {
	value, err := a.Value(ctx, environment)
	if err != nil {
		return rotation.Application{}, err
	}
	app, err := a.parse(environment, value)
	if err != nil {
		return rotation.Application{}, fmt.Errorf("environment %s: %w that can be used: %w; store them again with: "+
			"tokenturn app set %s",
			environment, rotation.ErrNoApplication, err, environment)
	}
	return app, nil
}

// Environments lists the environments with app credentials.
func (a Applications) Environments(ctx context.Context) (environments []string, err error) {
	err = a.s.read(ctx, "listing the app credentials", func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT environment FROM application ORDER BY environment`)
		if err != nil {
			return err
		}
		environments, err = collect(rows, func(rows *sql.Rows) (environment string, err error) {
			err = rows.Scan(&environment)
			return environment, err
		})
		return err
	})
	return environments, err
}

// Value returns what Set stored. rotation.ErrNoApplication.
func (a Applications) Value(ctx context.Context, environment string) (token.Secret, error) {
	what := "reading the app credentials of " + environment
	var sealed []byte
	err := a.s.db.QueryRowContext(ctx, `SELECT sealed FROM application WHERE environment = ?`, environment).Scan(&sealed)
	if errors.Is(err, sql.ErrNoRows) {
		err = rotation.ErrNoApplication
	}
	if err != nil {
		return token.Secret{}, a.s.fault(what, err)
	}
	value, err := unseal(a.s.keys.applications, sealed, environment)
	return token.NewSecret(value), a.s.fault(what, err)
}

// Set stores an environment's app credentials, replacing earlier ones, if they can be
// parsed.
func (a Applications) Set(ctx context.Context, environment string, value token.Secret) error {
	what := "storing the app credentials of " + environment
	if _, err := a.parse(environment, value); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return a.s.write(ctx, what, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO application (environment, sealed) VALUES (?1, ?2)
			ON CONFLICT (environment) DO UPDATE SET sealed = ?2`,
			environment, seal(a.s.keys.applications, value.Reveal(), environment))
		return err
	})
}
