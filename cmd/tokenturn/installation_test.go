package main

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The embedded store takes the protocol's times from the environment, as the functions do.
func TestEmbeddedSettings(t *testing.T) {
	c := &cli{environ: []string{"TOKENTURN_REDEEM_TIMEOUT=1s", "TOKENTURN_LEASE=7s", "TOKENTURN_QUIET=2s"}}
	in, err := c.openEmbedded(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer in.close()
	if s := in.settings; s.RedeemTimeout != time.Second || s.Lease != 7*time.Second || s.Quiet != 2*time.Second ||
		s.Stack != embeddedStack || s.PutsPerDay != 0 || s.Concurrency != 8 {
		t.Errorf("settings %+v", s)
	}
	c.environ = []string{"TOKENTURN_LEASE=1s"}
	if _, err := c.openEmbedded(t.Context(), t.TempDir(), c.logger(slog.LevelWarn)); exitCode(err) != usage ||
		!strings.Contains(err.Error(), "TOKENTURN_LEASE") {
		t.Errorf("a lease that is too short: %v", err)
	}
}

func TestDataDir(t *testing.T) {
	for _, test := range []struct {
		environ []string
		data    string
		want    string
	}{
		{[]string{"HOME=/home/pat"}, "", "/home/pat/.local/share/tokenturn"},
		{[]string{"HOME=/home/pat", "XDG_DATA_HOME=/data"}, "", "/data/tokenturn"},
		{[]string{"HOME=/home/pat", "XDG_DATA_HOME=relative"}, "", "/home/pat/.local/share/tokenturn"},
		{[]string{"HOME=/home/pat"}, "/srv/t", "/srv/t"},
		{[]string{"USERPROFILE=/users/pat"}, "", "/users/pat/.local/share/tokenturn"}, // Windows
		{[]string{"USERPROFILE=/users/pat", "HOME=/home/pat"}, "", "/home/pat/.local/share/tokenturn"},
		{nil, "", ""},
	} {
		c := &cli{environ: test.environ, data: test.data}
		if got, err := c.dataDir(); got != test.want || (err != nil) != (test.want == "") {
			t.Errorf("%v %s: %q, %v", test.environ, test.data, got, err)
		}
	}
}

func TestProfilesPath(t *testing.T) {
	for want, environ := range map[string][]string{
		"/home/pat/.config/tokenturn/config.toml":  {"HOME=/home/pat", "XDG_CONFIG_HOME=relative"},
		"/config/tokenturn/config.toml":            {"HOME=/home/pat", "XDG_CONFIG_HOME=/config"},
		"/users/pat/.config/tokenturn/config.toml": {"USERPROFILE=/users/pat"}, // Windows
		"": nil,
	} {
		if got := (&cli{environ: environ}).profilesPath(); filepath.ToSlash(got) != want {
			t.Errorf("%v: %q, want %q", environ, got, want)
		}
	}
}
