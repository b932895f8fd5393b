//go:build mutations

package rotation_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// removal takes one rule of the protocol out of the engine.
type removal struct {
	name    string // what is wrong then
	file    string
	with    string // occurs once in the file
	without string
}

var thorough = flag.Bool("thorough", false, "let the explorer look even where the fault table has noticed")

// TestEveryRuleIsNeeded takes one rule after the other out of the engine's
// source and lets the fault table, and where that notices nothing the explorer,
// loose on what is left: they must find it. The tree itself stays as it is; the
// compiler gets the change as an overlay.
func TestEveryRuleIsNeeded(t *testing.T) {
	removals := removals
	if testing.Short() {
		removals = removals[:10]
	}
	caught := make([]string, len(removals))
	t.Run("an engine in which", func(t *testing.T) {
		for i, r := range removals {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				binary := r.compile(t)
				rows := failures(t, binary, "TestTheFaultTable")
				explored := "not asked"
				if len(rows) == 0 || *thorough {
					scenarios := failures(t, binary, "TestEveryFaultIsSurvived$/^on_a_server_that$/^ends_the_old_pair_at_once", "-test.failfast", "-test.parallel=1")
					if len(rows)+len(scenarios) == 0 {
						t.Fatal("nothing fails")
					}
					explored = summary(scenarios)
				}
				caught[i] = fmt.Sprintf("%-66s fault table %s; explorer %s", r.name, summary(rows), explored)
			})
		}
	})
	caught = slices.DeleteFunc(caught, func(row string) bool { return row == "" }) // not run, or not caught
	t.Log("caught by\n" + strings.Join(caught, "\n"))
}

// compile builds the tests of the engine without the rule.
func (r removal) compile(t *testing.T) (binary string) {
	source, err := os.ReadFile(r.file)
	must(t, err)
	if n := strings.Count(string(source), r.with); n != 1 {
		t.Fatalf("what is to be taken out of %s occurs there %d times; the table must follow the engine:\n%s", r.file, n, r.with)
	}
	dir := t.TempDir()
	changed, overlay, binary := filepath.Join(dir, r.file), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "rotation.test")
	must(t, os.WriteFile(changed, []byte(strings.Replace(string(source), r.with, r.without, 1)), 0o600))
	path, err := filepath.Abs(r.file)
	must(t, err)
	text, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	must(t, err)
	must(t, os.WriteFile(overlay, text, 0o600))
	out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-ldflags=-s -w", "-overlay", overlay, "-o", binary, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("the engine without it does not compile: %v\n%s", err, out)
	}
	return binary
}

// failures names the subtests that fail, and then the first invariant broken.
func failures(t *testing.T, binary, test string, args ...string) (names []string) {
	run := exec.CommandContext(t.Context(), binary, append([]string{"-test.run=^" + test + "$", "-test.timeout=10m"}, args...)...)
	out, err := run.CombinedOutput()
	if err == nil {
		return nil
	}
	for _, match := range failed.FindAllStringSubmatch(string(out), -1) {
		names = append(names, match[1])
	}
	if len(names) == 0 {
		t.Fatalf("%s ends with %v, and no subtest failed:\n%s", test, err, out)
	}
	return append(names, broken.FindString(string(out)))
}

var (
	failed = regexp.MustCompile(`(?m)^ +--- FAIL: \S+/([^/\s]+) `)
	broken = regexp.MustCompile(`I\d+ is broken|panicked|no end after|deadlock`)
)

// summary is how many fail, one of them, and which invariant is broken.
func summary(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	last := strings.ReplaceAll(names[len(names)-2], "_", " ")
	return strings.TrimSuffix(fmt.Sprintf("%d, such as %s: %s", len(names)-1, last, names[len(names)-1]), ": ")
}

// The first ten are what no rotation is safe without; go test -short tries no more.
var removals = []removal{
	{"saving is fenced by the lease", "redeem.go",
		"	if err := t.save(ctx, m, others...); err != nil {\n",
		"	if t.clock().After(t.rec.Attempt.Until) {\n		return nil, ErrConflict\n	}\n	if err := t.save(ctx, m, others...); err != nil {\n"},
	{"there is no second store", "redeem.go",
		"others := []func(context.Context, TokenResponse) error{t.escrow}", "others := []func(context.Context, TokenResponse) error{}"},
	{"the token is read by label instead of from its pinned version", "redeem.go", `
	if i := slices.IndexFunc(t.responses, func(m TokenResponse) bool { return m.Key == t.rec.Current.Response }); i >= 0 {
		m = t.responses[i]
	} else if doc, err := token.ParseDocument(seen.current.Value); err == nil && seen.current.ID == t.rec.Current.VersionID {
		m = mintOf(doc)
	}
	body, err := t.open(ctx, m)
	if err != nil {
		return token.Secret{}, err
	}
	refresh := t.issuer.Parse(body).Pair.RefreshToken
	if refresh.IsZero() || refresh.Fingerprint() != t.rec.Current.Fingerprint {
`, `
	if i := slices.IndexFunc(t.responses, func(m TokenResponse) bool { return m.Key == t.rec.Current.Response }); i >= 0 && seen.current.ID == "" {
		m = t.responses[i]
	} else if doc, err := token.ParseDocument(seen.current.Value); err == nil {
		m = mintOf(doc)
	}
	body, err := t.open(ctx, m)
	if err != nil {
		return token.Secret{}, err
	}
	refresh := t.issuer.Parse(body).Pair.RefreshToken
	if refresh.IsZero() {
`},
	{"deciding is tied to the lease", "plan.go",
		"	if m := decidable(rec, s.responses); m != nil {\n",
		"	if m := decidable(rec, s.responses); m != nil && (rec.Attempt == nil || m.Key.Attempt == rec.Attempt.ID && s.now.Before(rec.Attempt.Until)) {\n"},
	{"an unknown end becomes terminal by counting", "redeem.go",
		"	if t.rec.Attempt.Presentations == 1 {\n",
		"	if t.rec.Attempt.Presentations == 3 {\n		return nil, t.giveUp(ctx)\n	}\n	if t.rec.Attempt.Presentations == 1 {\n"},
	{"publishing comes before deciding", "decide.go",
		"	next, err := t.decideOn(ctx, t.rec, t.responses, m, body)\n",
		"	if soon, err := t.succeed(t.rec, m, t.issuer.Parse(body).Pair, Pin{}); err == nil && m.Source == FromRefresh {\n" +
			"		value, _ := project(m, t.issuer.Parse(body).Pair).Encode()\n" +
			"		_, _ = t.show(ctx, vaultView{current: Version{ID: t.rec.Published}}, soon.Current.VersionID, value)\n	}\n" +
			"	next, err := t.decideOn(ctx, t.rec, t.responses, m, body)\n"},
	{"there is no quiet period, on servers that detect reuse", "plan.go",
		"s.now.Before(over) || mine {", "false && s.now.Before(over) || mine {"},
	{"a new access token is used before its pair is saved", "redeem.go",
		"	m := t.response(p, body)\n",
		"	m := t.response(p, body)\n	_, _ = t.identify(ctx, p.app, t.issuer.Parse(body).Pair.AccessToken, \"\")\n"},
	{"needs_consent is a hard terminal state", "plan.go",
		"	return (rec.Status == Active || rec.Status == NeedsConsent) && rec.Current != nil &&\n", "	return rec.Status == Active && rec.Current != nil &&\n"},
	{"promoting does not name the version it replaces", "publish.go",
		"return t.secrets.Promote(ctx, t.conn, id, seen.current.ID) })\n",
		"\n		now, _ := t.secrets.Current(ctx, t.conn)\n		return t.secrets.Promote(ctx, t.conn, id, now.ID)\n	})\n"},

	{"saving ends with the caller", "engine.go",
		"context.WithDeadline(context.WithoutCancel(ctx), deadline.Add(-reserve))", "context.WithDeadline(ctx, deadline.Add(-reserve))"},
	{"no attempt is written before the POST", "redeem.go",
		"	if err := t.begin(ctx); err != nil {\n		return nil, err\n	}\n",
		"	t.rec.Attempt = &Attempt{ID: newID(), Fingerprint: t.rec.Current.Fingerprint, Until: t.clock().Add(t.settings.Lease), Presentations: 1}\n	t.presented = t.rec.Attempt.ID\n"},
	{"writes do not compare the revision", "engine.go",
		"		_, err := k.ledger.Write(ctx, change)\n		return err\n",
		"		now, _, err := k.ledger.Load(ctx, rec.Connection)\n		if err == nil {\n			change.Record.Revision = now.Revision\n			_, err = k.ledger.Write(ctx, change)\n		}\n		return err\n"},
	{"a POST may end after the lease", "redeem.go",
		"t.clock().Add(t.settings.RedeemTimeout).After(t.rec.Attempt.Until) || ", ""},
	{"the secret store is not looked at before a token is spent", "redeem.go",
		"	case seen.adopt != nil:\n		return nil, nil, t.adopt(ctx, *seen.adopt)\n", ""},
	{"a sweep tells who must consent", "rotator.go",
		"	run.tellUntold(ctx)\n	if run.outOfTime", "	if run.outOfTime"},
	{"nobody searches for what was on its way at a disconnect", "engine.go",
		"	r.Residue, r.Attempt = until.Add(quiet+15*time.Minute).UTC(), nil\n", "	r.Attempt = nil\n"},
	{"an imported pair waits for the secret store to show it", "redeem.go",
		"	case seen.drift != \"\" && t.rec.Current.VersionID != \"\":", "	case seen.drift != \"\":"},
	{"one run may present twice", "plan.go", "	case s.presented != \"\", s.spendless,", "	case s.spendless,"},
	{"an attempt that is overtaken has no row in the history", "engine.go",
		"	if r.Attempt == nil || r.Attempt.ID == by {\n", "	if true {\n"},
	{"what is over is not revoked while an end is unknown", "plan.go",
		"		if a, ok := planActive(s); ok && a.outcome != Unknown && a.outcome != Held {\n", "		if a, ok := planActive(s); ok {\n"},
	{"a store that hangs is waited for", "engine.go",
		"			err := within(ctx, storeTimeout, func(ctx context.Context) error { return store(ctx, m) })\n", "			err := store(ctx, m)\n"},
}
