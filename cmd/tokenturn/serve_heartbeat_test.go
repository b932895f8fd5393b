package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/doctor"
	"github.com/tokenturn/tokenturn/pkg/rotation"
)

type records []rotation.Record

func (r records) List(context.Context) ([]rotation.Record, error) { return r, nil }

func TestDoctorReadsTheHeartbeat(t *testing.T) {
	active := records{{Status: rotation.Pending}, {Status: rotation.Active}}
	dir := t.TempDir()
	wants := func(of records, level doctor.Level, says string) {
		t.Helper()
		findings := checkServe(dir, of)(t.Context())
		if level == "" && len(findings) == 0 {
			return
		}
		if len(findings) != 1 || findings[0].Level != level || !strings.Contains(findings[0].Detail, says) ||
			(findings[0].Remedy == "") != (level == doctor.OK) ||
			strings.Contains(findings[0].Detail, "seen last") && findings[0].Remedy !=
				"start it with: tokenturn serve --addr localhost:9000" {
			t.Errorf("%+v", findings)
		}
	}
	wants(nil, "", "")
	wants(active[:1], "", "")
	wants(active, doctor.Warning, "tokenturn serve does not run, so connections are rotated only on request")

	in := &installation{dir: dir, publicURL: "http://localhost:9000", log: slog.New(slog.DiscardHandler)}
	h := (&system{in: in, every: 10 * time.Second}).heart()
	swept := time.Now()
	h.beat(swept)
	wants(active, doctor.OK, "tokenturn serve runs at http://localhost:9000 and sweeps every 10s; the last sweep began ")
	if every := servedEvery(dir, time.Hour); every != 10*time.Second {
		t.Errorf("a sweep every %v", every)
	}
	if info, err := os.Stat(filepath.Join(dir, heartbeatName)); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("%v %v", info.Mode(), err)
	}

	h.last.At = time.Now().Add(-beatLimit - time.Minute) // killed, or hangs
	h.write()
	wants(active, doctor.Warning, "does not run, so connections are rotated only on request; it was seen last 3m ago")
	if every := servedEvery(dir, time.Hour); every != time.Hour {
		t.Errorf("a sweep every %v", every)
	}
	h.beat(swept)
	wants(active, doctor.OK, "runs at")
	if h.lock != nil { // the system closes what a killed process had open
		h.lock.Close()
		wants(active, doctor.Warning, "does not run, so connections are rotated only on request; it was seen last ")
		if at := servedAt(dir); at != "" {
			t.Errorf("served at %s", at)
		}
		h = (&system{in: in, every: 10 * time.Second}).heart()
		h.beat(swept)
		wants(active, doctor.OK, "runs at")
	}
	h.stop()
	wants(active, doctor.Warning, "it was seen last ")

	leftover := filepath.Join(dir, "."+heartbeatName+"-123")
	if err := os.WriteFile(leftover, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(leftover, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	other := (&system{in: in, every: time.Minute}).heart()
	other.last.PID++
	other.beat(swept)
	h.stop() // the last of several that wrote counts
	wants(active, doctor.OK, "sweeps every 1m0s")
	if found, err := os.ReadDir(dir); err != nil || len(found) != 1 {
		t.Errorf("%v %v", found, err)
	}
	if err := os.WriteFile(filepath.Join(dir, heartbeatName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	wants(active, doctor.Warning, "whether tokenturn serve runs is not known: ")
	if found, err := os.ReadDir(dir); err != nil || len(found) != 1 {
		t.Errorf("%v %v", found, err)
	}
}
