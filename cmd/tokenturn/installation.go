package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/tokenturn/tokenturn/pkg/awsstack"
	"github.com/tokenturn/tokenturn/pkg/config"
	"github.com/tokenturn/tokenturn/pkg/consent"
	"github.com/tokenturn/tokenturn/pkg/doctor"
	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/release"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/secretsmanager"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// installation is everything a command may need of one installation, wherever
// that keeps its things.
type installation struct {
	ledger    ledger
	secrets   rotation.SecretStore
	deletions deletions
	sealer    rotation.Sealer
	apps      applications
	consents  consent.Store
	issuer    *procore.Issuer
	followUps rotation.FollowUps // nil: the next sweep does it
	notifier  rotation.Notifier  // nil: log only
	// What all processes of an installation share; nil on one machine, where a process
	// keeps the pace, and what it told, to itself.
	pace         rotation.RateLimiter
	noticeClaims rotation.NoticeClaims
	settings     rotation.Settings
	publicURL    string // where links lead; empty if that is not known
	// organization is whom the pages of `serve` name; may be empty.
	organization string
	log          *slog.Logger
	// In AWS alone: policies of secrets, and who the caller is.
	protections *secretsmanager.Protections
	caller      func(context.Context) (arn string, err error)
	checks      []doctor.Check // of what only this kind of installation has
	close       func() error
}

// ledger is what both stores offer beyond the engine's port.
type ledger interface {
	rotation.Ledger
	List(ctx context.Context) ([]rotation.Record, error)
	History(ctx context.Context, c token.Connection, limit int) ([]rotation.Event, error)
}

// applications are app credentials that can be shown and set.
type applications interface {
	rotation.Applications
	Value(ctx context.Context, environment string) (token.Secret, error)
	Set(ctx context.Context, environment string, value token.Secret) error
}

// deletions schedule the deletion of connections' secrets, and take that back.
type deletions interface {
	Schedule(ctx context.Context, c token.Connection, recovery time.Duration) (at time.Time, err error)
	Cancel(ctx context.Context, c token.Connection) error
}

const (
	// embeddedStack is the installation's id in documents. One directory is one
	// installation, and no other can reach what is in it.
	embeddedStack = "embedded"
	// localURL is where `serve` is unless told otherwise.
	localURL = "http://localhost:8080"
)

// with opens the installation for the time of do. Where nothing has been
// stored yet, that is an error: a command that only reads makes no store.
func (c *cli) with(ctx context.Context, do func(*installation) error) error {
	if c.store == "embedded" {
		dir, err := c.dataDir()
		if err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(dir, embedded.DatabaseName)); errors.Is(err, fs.ErrNotExist) {
			return exitf(notFound, "nothing is stored in %s yet; begin with: tokenturn app set sandbox\n"+
				"or see a demonstration with: tokenturn serve --demo", dir)
		}
	}
	return c.withNew(ctx, do)
}

// withNew is with for commands that may be the first ones on an installation.
func (c *cli) withNew(ctx context.Context, do func(*installation) error) error {
	in, err := c.open(ctx)
	if err != nil {
		return err
	}
	return errors.Join(do(in), in.close())
}

func (c *cli) open(ctx context.Context) (*installation, error) {
	log := c.logger(slog.LevelWarn)
	if c.store == "aws" {
		return c.openAWS(ctx, log)
	}
	dir, err := c.dataDir()
	if err != nil {
		return nil, err
	}
	return c.openEmbedded(ctx, dir, log)
}

func (c *cli) openEmbedded(ctx context.Context, dir string, log *slog.Logger) (*installation, error) {
	configured, err := config.Read(config.Local, c.environ)
	if err != nil {
		return nil, &exitError{usage, err}
	}
	settings := configured.Rotation()
	settings.Stack = embeddedStack
	settings.PutsPerDay = 0 // the embedded secret store takes any number of versions
	store, err := embedded.Open(ctx, dir)
	if err != nil {
		return nil, err
	}
	return &installation{ledger: store.Ledger(), secrets: store.SecretStore(), deletions: store.Deletions(),
		sealer: store.Sealer(),
		apps:   store.Applications(procore.ParseApplication), consents: store.Consents(),
		issuer:   procore.New(procore.Config{RedeemTimeout: settings.RedeemTimeout, Version: release.Version()}),
		settings: settings, publicURL: localURL, log: log, checks: []doctor.Check{checkStore(store, dir)},
		close: store.Close}, nil
}

func (c *cli) openAWS(ctx context.Context, log *slog.Logger) (*installation, error) {
	settings, err := config.Read(config.Operator, c.environ)
	if err != nil {
		return nil, &exitError{usage, err}
	}
	stack, err := awsstack.Open(ctx, settings, log, nil, nil)
	if err != nil {
		return nil, err
	}
	return &installation{ledger: stack.Table, secrets: stack.SecretStore, deletions: stack.Deletions,
		protections: stack.Protections,
		caller:      stack.Caller, sealer: stack.Sealer, apps: stack.Applications,
		consents: stack.Table, issuer: stack.Issuer, followUps: stack.FollowUps, notifier: stack.Notifier,
		pace: stack.Table, noticeClaims: stack.Table,
		settings: settings.Rotation(), publicURL: settings.PublicURL, log: log, checks: stack.Checks(),
		close: func() error { return nil }}, nil
}

// dataDir is the directory of the embedded store, by the XDG Base Directory
// Specification unless --data names one.
func (c *cli) dataDir() (string, error) {
	if c.data != "" {
		return filepath.Abs(c.data)
	}
	// "If an implementation encounters a relative path [...] it should [...] ignore it"
	if dir := c.getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "tokenturn"), nil
	}
	if home := c.getenv("HOME"); home != "" {
		return filepath.Join(home, ".local", "share", "tokenturn"), nil
	}
	return "", exitf(usage, "neither XDG_DATA_HOME nor HOME is set; name the directory of the store with --data")
}

func (in *installation) rotator() (*rotation.Rotator, error) {
	cfg := rotation.Config{Ledger: in.ledger, SecretStore: in.secrets, Sealer: in.sealer, Applications: in.apps,
		Issuer: in.issuer, FollowUps: in.followUps, RateLimiter: in.pace, Notifier: in.notifier,
		NoticeClaims: in.noticeClaims,
		Log:          in.log, Settings: in.settings}
	if in.publicURL != "" {
		cfg.Invitations = consent.Renewals{Store: in.consents, Applications: in.apps, PublicURL: in.publicURL}
	}
	return rotation.NewRotator(cfg)
}

func (in *installation) exchanges() (*rotation.Consents, error) {
	return rotation.NewConsents(rotation.ConsentsConfig{Ledger: in.ledger, Sealer: in.sealer, Applications: in.apps,
		Issuer: in.issuer, FollowUps: in.followUps, Notifier: in.notifier, NoticeClaims: in.noticeClaims,
		Log: in.log, Settings: in.settings})
}

// application returns the app credentials of an environment.
func (in *installation) application(ctx context.Context, environment string) (rotation.Application, error) {
	app, err := in.apps.Application(ctx, environment)
	if errors.Is(err, rotation.ErrNoApplication) {
		err = errNoApplication(environment)
	}
	return app, err
}

// load returns a connection that must exist.
func (in *installation) load(ctx context.Context, conn token.Connection) (rotation.Record, []rotation.TokenResponse,
	error) {
	rec, responses, err := in.ledger.Load(ctx, conn)
	if err == nil && rec.Revision == "" {
		err = errUnknown(conn)
	}
	return rec, responses, err
}

// register makes sure that a connection exists and that a consent to it can be
// published: a secret that is scheduled for deletion is restored.
func (in *installation) register(ctx context.Context, conn token.Connection) (rotation.Record, error) {
	if _, err := in.secrets.Current(ctx, conn); errors.Is(err, rotation.ErrSecretDeleted) {
		if err := in.deletions.Cancel(ctx, conn); err != nil && !errors.Is(err, rotation.ErrNoSecret) {
			return rotation.Record{}, fmt.Errorf("the secret of %s is scheduled for deletion and cannot be restored, "+
				"so nothing could be published: %w; try again, or once it is gone", conn, err)
		}
		in.log.WarnContext(ctx, "the secret was scheduled for deletion and is restored, without a usable token", "connection",
			conn.String())
	}
	rec, err := rotation.Register(ctx, in.ledger, in.secrets, in.settings.Stack, conn)
	if err != nil {
		return rotation.Record{}, fmt.Errorf("registering %s: %w", conn, err)
	}
	return rec, nil
}
