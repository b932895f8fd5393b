package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/embedded"
	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var forgotten = token.Connection{Environment: "demo", Name: "gone"}

// openForgettable opens an installation with a row that can be forgotten unless change
// prevents it: it
// is disconnected and has a history, an invitation that can be used, and no secret.
func openForgettable(t *testing.T, change func(*installation, *rotation.Record)) (in *installation, dir string) {
	t.Helper()
	dir = t.TempDir()
	in, err := (&cli{}).openEmbedded(t.Context(), dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.close() })
	now := time.Now()
	rec := rotation.Record{Connection: forgotten, Stack: embeddedStack, Status: rotation.Disconnected, Epoch: 2}
	change(in, &rec)
	_, err = in.ledger.Write(t.Context(), rotation.Change{Record: rec, History: []rotation.Event{{At: now, Kind: "x"}}})
	if err := errors.Join(err, in.consents.CreateInvitation(t.Context(), invitations.Invitation{Hash: "h",
		Connection: forgotten, CreatedAt: now, ExpiresAt: now.Add(time.Hour)})); err != nil {
		t.Fatal(err)
	}
	return in, dir
}

// left is what the installation still has of the connection.
func left(t *testing.T, in *installation) (row bool, events int, invited bool) {
	t.Helper()
	rec, _, err := in.ledger.Load(t.Context(), forgotten)
	history, err2 := in.ledger.History(t.Context(), forgotten, 10)
	invitation, err3 := in.consents.Invitation(t.Context(), "h")
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	return rec.Revision != "", len(history), invitation.Usable(time.Now())
}

// forget runs the command on the store in dir.
func forget(t *testing.T, dir string) (code int, said string) {
	t.Helper()
	var out bytes.Buffer
	code = run(t.Context(), []string{"connection", "forget", forgotten.String(), "--yes", "--data", dir},
		strings.NewReader(""), &out, &out, nil)
	return code, out.String()
}

// What is in use is not forgotten: the row, its history and its invitations stay.
func TestForgetRefuses(t *testing.T) {
	secret := func(t *testing.T, in *installation) {
		t.Helper()
		if err := in.secrets.Create(t.Context(), forgotten, "v", token.NewSecret("{}")); err != nil {
			t.Fatal(err)
		}
	}
	const another = `the secret of demo/gone belongs to installation "another", and this is "embedded": ` +
		"give each installation its own secret prefix"
	for what, test := range map[string]struct {
		change func(*testing.T, *installation, *rotation.Record)
		code   int
		says   string
	}{
		"active": {func(_ *testing.T, _ *installation, r *rotation.Record) { r.Status = rotation.Active },
			failed, "demo/gone is active, so its tokens may work; nothing was changed; disconnect it first"},
		"needs consent": {func(_ *testing.T, _ *installation, r *rotation.Record) { r.Status = rotation.NeedsConsent },
			failed, "demo/gone is needs_consent, so its tokens may work; nothing was changed; disconnect it first"},
		"a refresh in progress": {func(_ *testing.T, _ *installation, r *rotation.Record) {
			r.Attempt = &rotation.Attempt{ID: "a", BegunAt: time.Now(), Until: time.Now().Add(time.Minute)}
		}, tryLater, "a refresh of demo/gone is in progress; nothing was changed"},
		"a response may arrive": {func(_ *testing.T, _ *installation, r *rotation.Record) {
			r.SearchAt = time.Now().Add(time.Hour)
		}, tryLater, "a response for demo/gone may still arrive, so tokenturn keeps its row; nothing was changed"},
		"a secret": {func(t *testing.T, in *installation, _ *rotation.Record) { secret(t, in) },
			failed, "demo/gone still has a secret; nothing was changed"},
		"another installation's": {func(_ *testing.T, _ *installation, r *rotation.Record) { r.Stack = "another" },
			failed, another},
		"another installation's, pending": {func(_ *testing.T, _ *installation, r *rotation.Record) {
			r.Stack, r.Status = "another", rotation.Pending
		}, failed, another},
	} {
		t.Run(what, func(t *testing.T) {
			in, dir := openForgettable(t, func(in *installation, r *rotation.Record) { test.change(t, in, r) })
			code, said := forget(t, dir)
			if code != test.code || !strings.Contains(said, test.says) {
				t.Errorf("exits with %d and says %s", code, said)
			}
			if row, events, invited := left(t, in); !row || events == 0 || !invited {
				t.Errorf("row %t, %d events, usable invitation %t", row, events, invited)
			}
		})
	}
}

// recoverable are deletions that only end with time, as those of Secrets Manager do.
type recoverable struct{ deletions }

// A secret that can be restored is deleted at once where the store can. Elsewhere nothing
// changes, and the message has the command that deletes it.
func TestForgetOfAScheduledSecret(t *testing.T) {
	in, dir := openForgettable(t, func(in *installation, _ *rotation.Record) {
		if err := in.secrets.Create(t.Context(), forgotten, "v", token.NewSecret("{}")); err != nil {
			t.Fatal(err)
		}
		if _, err := in.deletions.Schedule(t.Context(), forgotten, defaultRecovery); err != nil {
			t.Fatal(err)
		}
	})
	aws := *in
	aws.deletions, aws.secretPrefix = recoverable{in.deletions}, "prefix"
	err := (&cli{stdout: io.Discard, stderr: io.Discard}).forget(t.Context(), &aws, forgotten, true)
	if exitCode(err) != tryLater || !strings.Contains(err.Error(), "the secret of demo/gone is scheduled for deletion "+
		"and can still be restored; nothing was changed") || !strings.Contains(err.Error(), "aws secretsmanager "+
		"delete-secret --force-delete-without-recovery --secret-id prefix/connection/demo/gone") {
		t.Errorf("forget: %v", err)
	}
	if row, _, invited := left(t, in); !row || !invited {
		t.Errorf("row %t, usable invitation %t", row, invited)
	}
	if code, said := forget(t, dir); code != done || !strings.Contains(said, "and its secret are deleted") {
		t.Errorf("exits with %d and says %s", code, said)
	}
	if _, err := in.secrets.Current(t.Context(), forgotten); !errors.Is(err, rotation.ErrNoSecret) {
		t.Errorf("the secret is there: %v", err)
	}
}

// failingRemoval is a ledger that cannot remove anything.
type failingRemoval struct{ ledger }

func (failingRemoval) Remove(context.Context, rotation.Record) error { return io.ErrUnexpectedEOF }

// After an interruption at any point, the same command does the rest.
func TestForgetAfterAnInterruption(t *testing.T) {
	for what, interrupt := range map[string]func(t *testing.T, in *installation, dir string){
		"before it": func(*testing.T, *installation, string) {},
		"after the invitations": func(t *testing.T, in *installation, _ string) {
			stopped := *in
			stopped.ledger = failingRemoval{in.ledger}
			err := (&cli{stdout: io.Discard, stderr: io.Discard}).forget(t.Context(), &stopped, forgotten, true)
			if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "run the same command again") {
				t.Errorf("forget: %v", err)
			}
			if row, _, invited := left(t, in); !row || invited {
				t.Errorf("row %t, usable invitation %t", row, invited)
			}
		},
		"after the row": func(t *testing.T, _ *installation, dir string) { // on DynamoDB the history is deleted after it
			deleteRow(t, dir)
		},
	} {
		t.Run(what, func(t *testing.T) {
			in, dir := openForgettable(t, func(*installation, *rotation.Record) {})
			interrupt(t, in, dir)
			if code, said := forget(t, dir); code != done || !strings.Contains(said,
				"demo/gone is forgotten: its row and its history are deleted.") {
				t.Errorf("exits with %d and says %s", code, said)
			}
			if row, events, invited := left(t, in); row || events > 0 || invited {
				t.Errorf("row %t, %d events, usable invitation %t", row, events, invited)
			}
			if code, said := forget(t, dir); code != notFound {
				t.Errorf("again it exits with %d and says %s", code, said)
			}
		})
	}
}

func deleteRow(t *testing.T, dir string) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, embedded.DatabaseName))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), `DELETE FROM record`); err != nil {
		t.Fatal(err)
	}
}
