package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/doctor"
	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// heartbeatName is the name of the file in the data directory by which other commands know
// that `serve` runs.
const heartbeatName = "serve.json"

// heartbeat is the content of the file. Of several `serve` on one store, the last one that
// wrote it counts.
type heartbeat struct {
	URL     string    `json:"url"`
	PID     int       `json:"pid"`
	Every   string    `json:"every"`    // time between two sweeps
	SweptAt time.Time `json:"swept_at"` // begin of the last scheduled sweep
	At      time.Time `json:"at"`       // when this was written
	Stopped bool      `json:"stopped"`
	Locked  bool      `json:"locked,omitempty"` // the data directory is locked as long as the process runs
}

const (
	// The file is written at each wake of the queue, but not more often than beatInterval
	// unless a sweep has begun.
	beatInterval = 10 * time.Second
	// A heartbeat that is older than beatLimit is that of a process that ended or hangs.
	beatLimit = 4 * wakeInterval
)

// heart writes the heartbeat of one `serve`.
type heart struct {
	file   string
	last   heartbeat
	failed bool
	lock   *os.File // nil: the data directory cannot be locked
	log    *slog.Logger
}

func (s *system) heart() *heart {
	removeLeftovers(s.in.dir)
	h := &heart{file: filepath.Join(s.in.dir, heartbeatName), log: s.in.log,
		last: heartbeat{URL: s.in.publicURL, PID: os.Getpid(), Every: s.every.String()}}
	if lock, err := lockDir(s.in.dir); err == nil {
		h.lock, h.last.Locked = lock, true
	}
	return h
}

// temporaryHeartbeat begins the name of a file that becomes the heartbeat.
const temporaryHeartbeat = "." + heartbeatName + "-"

// removeLeftovers removes the temporary files of a process that crashed while it wrote. Another
// `serve` may be writing a new one.
func removeLeftovers(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		info, err := entry.Info()
		if err == nil && strings.HasPrefix(entry.Name(), temporaryHeartbeat) && time.Since(info.ModTime()) > beatLimit {
			_ = os.Remove(filepath.Join(dir, entry.Name()))
		}
	}
}

// beat says that `serve` runs, and when its last sweep began.
func (h *heart) beat(swept time.Time) {
	now := time.Now().UTC()
	if now.Sub(h.last.At).Abs() < beatInterval && swept.Equal(h.last.SweptAt) {
		return
	}
	h.last.SweptAt, h.last.At = swept.UTC(), now
	h.write()
}

// stop says that `serve` has ended, unless another `serve` has written the file since.
func (h *heart) stop() {
	if h.lock != nil {
		defer h.lock.Close()
	}
	if last, found, err := readHeartbeat(filepath.Dir(h.file)); err != nil || !found || last.PID != h.last.PID {
		return
	}
	h.last.At, h.last.Stopped = time.Now().UTC(), true
	h.write()
}

// write replaces the file. Rotations do not depend on it.
func (h *heart) write() {
	if err := h.replace(); err != nil && !h.failed {
		h.failed = true
		h.log.Warn("tokenturn doctor cannot see that this process runs", "error", err)
	}
}

func (h *heart) replace() error {
	content, err := json.Marshal(h.last)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(h.file), temporaryHeartbeat+"*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(content, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), h.file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// readHeartbeat returns the last heartbeat in a data directory; found is false if there is none.
func readHeartbeat(dir string) (h heartbeat, found bool, err error) {
	content, err := os.ReadFile(filepath.Join(dir, heartbeatName))
	if errors.Is(err, fs.ErrNotExist) {
		return h, false, nil
	}
	if err == nil {
		err = json.Unmarshal(content, &h)
	}
	return h, err == nil, err
}

// alive reports whether the process that wrote the heartbeat in dir runs.
func (h heartbeat) alive(dir string, now time.Time) bool {
	return !h.Stopped && now.Sub(h.At).Abs() < beatLimit && (!h.Locked || dirIsLocked(dir))
}

// servedEvery is the time between two sweeps of the `serve` that runs; fallback if none does.
func servedEvery(dir string, fallback time.Duration) time.Duration {
	h, found, err := readHeartbeat(dir)
	if every, parseErr := time.ParseDuration(h.Every); err == nil && found && h.alive(dir, time.Now()) && parseErr == nil {
		return every
	}
	return fallback
}

// servedAt is the URL of the `serve` that runs; empty if none does, or in AWS.
func servedAt(dir string) string {
	if h, found, err := readHeartbeat(dir); dir != "" && err == nil && found && h.alive(dir, time.Now()) {
		return h.URL
	}
	return ""
}

// checkServe reports whether `serve` runs. If no connection is active, nothing needs it.
func checkServe(dir string, records doctor.Records) doctor.Check {
	return func(ctx context.Context) []doctor.Finding {
		h, found, err := readHeartbeat(dir)
		now := time.Now()
		if err == nil && found && h.alive(dir, now) {
			detail := fmt.Sprintf("tokenturn serve runs at %s and sweeps every %s", h.URL, h.Every)
			if !h.SweptAt.IsZero() {
				detail += "; the last sweep began " + distance(h.SweptAt, now)
			}
			return []doctor.Finding{{Check: "serve", Subject: dir, Level: doctor.OK, Detail: detail}}
		}
		all, listErr := records.List(ctx)
		if listErr != nil || !slices.ContainsFunc(all, func(r rotation.Record) bool { return r.Status == rotation.Active }) {
			return nil
		}
		detail := "tokenturn serve does not run, so connections are rotated only on request"
		switch {
		case err != nil:
			detail = "whether tokenturn serve runs is not known: " + err.Error()
		case found:
			detail += "; it was seen last " + distance(h.At, now)
		}
		return []doctor.Finding{{Check: "serve", Subject: dir, Level: doctor.Warning, Detail: detail,
			Remedy: "start it with: tokenturn serve" + h.addr()}}
	}
}

// addr is the flag with which `serve` listens where it did; empty: where it does by default.
// Consent links and readers lead there.
func (h heartbeat) addr() string {
	at, err := url.Parse(h.URL)
	if err != nil || at.Scheme != "http" || at.Host == "" || at.Host == "localhost:8080" {
		return ""
	}
	return " --addr " + at.Host
}
