package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/tokenturn/tokenturn/pkg/config"
	"github.com/tokenturn/tokenturn/pkg/doctor"
	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/procore"
	"github.com/tokenturn/tokenturn/pkg/release"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/secretsmanager"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// installation is what a command may need of one installation, whatever its store is.
type installation struct {
	ledger    ledger
	secrets   rotation.SecretStore
	deletions deletions
	sealer    rotation.Sealer
	apps      applications
	consents  invitations.Store
	issuer    *procore.Issuer
	followUps rotation.FollowUps // nil: the next sweep does the work
	notifier  rotation.Notifier  // nil: log only
	// What all processes of an installation share. nil on one machine: each process limits
	// its own rate and claims its own notices.
	rateLimiter  rotation.RateLimiter
	noticeClaims rotation.NoticeClaims
	settings     rotation.Settings
	// publicURL is where the pages are; empty if not known. On one machine, that is the address
	// of the `serve` that runs, or of the usual one.
	publicURL    string
	secretPrefix string // of names in AWS Secrets Manager
	// organization is the name on the pages of `serve`; may be empty.
	organization string
	// returnOrigins are the origins that the return URL of an invitation may have.
	returnOrigins []string
	log           *slog.Logger
	now           func() time.Time // nil: time.Now
	// In AWS only: the policies of secrets, and the ARN of the caller.
	protections *secretsmanager.Protections
	caller      func(context.Context) (arn string, err error)
	checks      []doctor.Check // that only this kind of installation has
	// On one machine only: the data directory, and the environments with app credentials.
	dir          string
	environments func(context.Context) ([]string, error)
	close        func() error
}

// ledger is the engine's port and what both stores offer beyond it.
type ledger interface {
	rotation.Ledger
	List(ctx context.Context) ([]rotation.Record, error)
	History(ctx context.Context, c token.Connection, limit int) ([]rotation.Event, error)
	Remove(ctx context.Context, rec rotation.Record) error
}

// applications are app credentials that can be shown and set.
type applications interface {
	rotation.Applications
	Value(ctx context.Context, environment string) (token.Secret, error)
	Set(ctx context.Context, environment string, value token.Secret) error
}

// deletions schedule and cancel the deletion of connections' secrets.
type deletions interface {
	Schedule(ctx context.Context, c token.Connection, recovery time.Duration) (at time.Time, err error)
	Cancel(ctx context.Context, c token.Connection) error
}

const (
	// embeddedStack is the installation's id in documents. One directory is one
	// installation, which no other one can reach.
	embeddedStack = "embedded"
	// localURL is the public URL of `serve` if none runs.
	localURL = "http://localhost:8080"
)

// with opens the installation while do runs. If nothing is stored yet, that is an error: a
// command that only reads does not create a store.
func (c *cli) with(ctx context.Context, do func(*installation) error) error {
	return c.withAny(ctx, func(in *installation) error {
		if in != nil {
			return do(in)
		}
		dir, err := c.dataDir()
		if err != nil {
			return err
		}
		return exitf(notFound, "nothing is stored in %s yet; begin with: tokenturn app set sandbox\n"+
			"or step by step with: tokenturn setup\nor see the demo with: tokenturn serve --demo", dir)
	})
}

// withAny is with for commands that can do without an installation: do gets nil if nothing
// is stored yet.
func (c *cli) withAny(ctx context.Context, do func(*installation) error) error {
	if c.store == "embedded" {
		dir, err := c.dataDir()
		if err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(dir, embedded.DatabaseName)); errors.Is(err, fs.ErrNotExist) {
			return do(nil)
		}
	}
	return c.withNew(ctx, do)
}

// withNew is with for commands that may create the store.
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
	settings.PutsPerDay = 0 // the embedded secret store has no limit
	store, err := embedded.Open(ctx, dir)
	if err != nil {
		return nil, err
	}
	apps := store.Applications(procore.ParseApplication)
	return &installation{ledger: store.Ledger(), secrets: store.SecretStore(), deletions: store.Deletions(),
		sealer: store.Sealer(), apps: apps, dir: dir, environments: apps.Environments, consents: store.Consents(),
		issuer: procore.New(procore.Config{RedeemTimeout: settings.RedeemTimeout, Version: release.Version(),
			Proxy: configured.ProxyURL()}),
		settings: settings, publicURL: cmp.Or(servedAt(dir), localURL), returnOrigins: configured.ReturnOrigins, log: log,
		close:  store.Close,
		checks: []doctor.Check{checkStore(store, dir), checkServe(dir, store.Ledger())}}, nil
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
	if home := c.homeDir(); home != "" {
		return filepath.Join(home, ".local", "share", "tokenturn"), nil
	}
	return "", exitf(usage, "none of XDG_DATA_HOME, HOME and USERPROFILE is set; name the directory of the store with "+
		"--data")
}

// homeDir is the home directory of the user; empty if not known. Windows sets USERPROFILE,
// and HOME only in some shells.
func (c *cli) homeDir() string { return cmp.Or(c.getenv("HOME"), c.getenv("USERPROFILE")) }

func (in *installation) rotator() (*rotation.Rotator, error) {
	cfg := rotation.Config{Ledger: in.ledger, SecretStore: in.secrets, Sealer: in.sealer, Applications: in.apps,
		Issuer: in.issuer, FollowUps: in.followUps, RateLimiter: in.rateLimiter, Notifier: in.notifier,
		NoticeClaims: in.noticeClaims,
		Log:          in.log, Now: in.now, Settings: in.settings}
	if in.publicURL != "" && in.notifier != nil { // else nobody would see the link
		cfg.Invitations = invitations.Renewals{Store: in.consents, Applications: in.apps, PublicURL: in.publicURL}
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
		err = in.withoutApplication(ctx, environment)
	}
	return app, err
}

// load returns a connection that must exist.
func (in *installation) load(ctx context.Context, conn token.Connection) (rotation.Record, []rotation.TokenResponse,
	error) {
	rec, responses, err := in.ledger.Load(ctx, conn)
	if err == nil && rec.Revision == "" {
		err = in.unknown(ctx, conn)
	}
	return rec, responses, err
}

// register makes sure that a connection exists and that its tokens can be published: it
// restores a secret that is scheduled for deletion. If nobody connects it until then, the
// connection may be deleted.
func (in *installation) register(ctx context.Context, conn token.Connection, until time.Time) (rotation.Record,
	error) {
	if _, err := in.secrets.Current(ctx, conn); errors.Is(err, rotation.ErrSecretDeleted) {
		if err := in.deletions.Cancel(ctx, conn); err != nil && !errors.Is(err, rotation.ErrNoSecret) {
			return rotation.Record{}, fmt.Errorf("the secret of %s is scheduled for deletion and cannot be restored, "+
				"so nothing could be published: %w; try again now, or after its deletion", conn, err)
		}
		in.log.WarnContext(ctx, "the secret was scheduled for deletion and is restored, without a usable token", "connection",
			conn.String())
	}
	rec, err := rotation.RegisterUntil(ctx, in.ledger, in.secrets, in.settings.Stack, conn, until)
	if err != nil {
		return rotation.Record{}, fmt.Errorf("registering %s: %w", conn, err)
	}
	return rec, nil
}
