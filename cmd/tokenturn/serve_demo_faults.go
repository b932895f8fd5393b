package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// demoTiming has the durations of the demo. They are short, so that a person can watch.
type demoTiming struct {
	every    time.Duration // time between two sweeps
	lifetime time.Duration // of access tokens: stands for Procore's 90 minutes
	short    time.Duration // stands for 15 minutes
	// See rotation.Settings. The lease is the shortest that the redeem timeout allows.
	redeemTimeout, lease, quiet time.Duration

	slow    time.Duration // a slow answer; less than redeemTimeout
	wait    time.Duration // asked for with a 429
	outage  time.Duration
	refusal time.Duration // of the secret store
	lock    time.Duration // of the database
	ahead   time.Duration // of the clock
	look    time.Duration // that a person has to look at what else would be over at once
}

func newDemoTiming(every time.Duration) demoTiming {
	t := demoTiming{every: every, lifetime: 4 * every, redeemTimeout: 2 * time.Second, lease: 9 * time.Second,
		quiet: 2 * time.Second, slow: 1200 * time.Millisecond, wait: 5 * time.Second, outage: 6 * time.Second,
		refusal: 20 * time.Second, lock: 6 * time.Second, ahead: time.Hour,
		look: 4 * time.Second}
	// expires_in has whole seconds, and the token has to live long enough to be seen.
	t.short = max(3*time.Second, (t.lifetime / 6).Round(time.Second))
	return t
}

// environ are the settings of the demo, as variables for its processes.
func (t demoTiming) environ() []string {
	return []string{"TOKENTURN_CADENCE=" + t.every.String(), "TOKENTURN_REDEEM_TIMEOUT=" + t.redeemTimeout.String(),
		"TOKENTURN_LEASE=" + t.lease.String(), "TOKENTURN_QUIET=" + t.quiet.String()}
}

// normal is how the stand-in treats an old pair when no experiment runs: as Doorkeeper can.
const normal = procoretest.OldLivesUntilFirstUse

// faults are what experiments do to the demo, from the outside: to the server, to the
// rotation process, and to the database by a connection of their own.
type faults struct {
	timing     demoTiming
	standIn    *procoretest.Server
	app        procoretest.App
	db         *sql.DB
	conn       *sql.Conn // the same one for all calls: it holds the lock
	followUps  rotation.FollowUps
	supervisor *supervisor

	mu   sync.Mutex
	held chan struct{} // closed to send the answers that are held
}

// newFaults opens a connection to the database of the demo. Close it.
func newFaults(ctx context.Context, database string) (*faults, error) {
	db, err := sql.Open("sqlite", "file:"+database+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", database, err)
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening %s: %w", database, err), db.Close())
	}
	f := &faults{db: db, conn: conn, held: make(chan struct{})}
	if err := f.acceptVersions(ctx); err != nil { // of a demo that was killed
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

func (f *faults) close() error { return errors.Join(f.conn.Close(), f.db.Close()) }

// restore brings back normal conditions.
func (f *faults) restore(ctx context.Context) error {
	f.release()
	f.standIn.Unscript()
	f.standIn.BringUp()
	f.standIn.SetPersonality(normal)
	f.standIn.SetLifetime(f.timing.lifetime)
	f.standIn.Register(f.app)
	err := errors.Join(f.unlock(ctx), f.acceptVersions(ctx))
	if p, _ := f.supervisor.running(); p == nil || p.clock != 0 {
		err = errors.Join(err, f.supervisor.restart(ctx, 0))
	}
	return err
}

// holdAnswer makes the server take the next refresh token, and keep its answer until release.
func (f *faults) holdAnswer() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.standIn.Script(procoretest.Blocked(f.held))
}

func (f *faults) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.held)
	f.held = make(chan struct{})
}

// refuseVersions makes the secret store take no new version for a while. The trigger ends by
// itself, so that even a demo that is killed leaves a store that works.
func (f *faults) refuseVersions(ctx context.Context, during time.Duration) error {
	_, err := f.conn.ExecContext(ctx, fmt.Sprintf(`CREATE TRIGGER demo_refuses_versions BEFORE INSERT ON version
		WHEN unixepoch('now') < %d
		BEGIN SELECT RAISE(ABORT, 'the demo makes the secret store refuse writes'); END`,
		time.Now().Add(during+time.Second).Unix()))
	if err != nil {
		return fmt.Errorf("making the secret store refuse writes: %w", err)
	}
	return nil
}

func (f *faults) acceptVersions(ctx context.Context) error {
	if _, err := f.conn.ExecContext(ctx, `DROP TRIGGER IF EXISTS demo_refuses_versions`); err != nil {
		return fmt.Errorf("making the secret store accept writes: %w", err)
	}
	return nil
}

// lock keeps every other process from writing to the database.
func (f *faults) lock(ctx context.Context) error {
	if _, err := f.conn.ExecContext(ctx, `BEGIN EXCLUSIVE`); err != nil {
		return fmt.Errorf("locking the database: %w", err)
	}
	return nil
}

// unlock ends lock, if it is locked.
func (f *faults) unlock(ctx context.Context) error {
	if _, err := f.conn.ExecContext(ctx, `ROLLBACK`); err != nil && !strings.Contains(err.Error(), "no transaction") {
		return fmt.Errorf("unlocking the database: %w", err)
	}
	return nil
}

// wrongSecret gives the app another client secret at the server.
func (f *faults) wrongSecret() {
	app := f.app
	app.ClientSecret = token.NewSecret("another-" + app.ClientSecret.Reveal())
	f.standIn.Register(app)
}

// alive reports whether the server would accept the refresh token with this fingerprint.
func (f *faults) alive(refresh token.Fingerprint) bool {
	for _, pair := range f.standIn.Live() {
		if pair.RefreshToken.Fingerprint() == refresh {
			return true
		}
	}
	return false
}
