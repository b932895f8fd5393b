package procoretest_test

import (
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/procore/procoretest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

func TestAServerThatIsDownHasNoEffect(t *testing.T) {
	c := newClient(t)
	access, refresh := c.pair()
	c.TakeDown(503)
	if a := c.refresh(refresh); a.status != 503 || a.get("error") != "server_error" {
		t.Errorf("a refresh: %d %s", a.status, a.text)
	}
	for _, path := range []string{"/", "/rest/v1.0/me", "/oauth/token/info"} {
		if a := c.get(path, access); a.status != 503 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	last := c.Presentations()[len(c.Presentations())-1]
	if last.Outcome != "unreceived" || last.Fingerprint != token.NewSecret(refresh).Fingerprint() {
		t.Errorf("presentation %+v", last)
	}
	c.BringUp()
	if a := c.refresh(refresh); a.status != 200 {
		t.Errorf("up again: %d %s", a.status, a.text)
	}
}

func TestPersonalityChanges(t *testing.T) {
	c := newClient(t)
	_, first := c.pair()
	second := c.refresh(first).get("refresh_token")
	c.refused(c.refresh(first), 400, "invalid_grant")
	c.SetPersonality(procoretest.OldLivesUntilFirstUse)
	third := c.refresh(second).get("refresh_token")
	if a := c.refresh(second); a.status != 200 {
		t.Errorf("the old pair is dead before the first use of its successor: %d", a.status)
	}
	c.SetPersonality()
	c.refresh(third)
	c.refused(c.refresh(third), 400, "invalid_grant")
}

func TestUnscript(t *testing.T) {
	c := newClient(t)
	_, refresh := c.pair()
	c.Script(procoretest.Unavailable(500), procoretest.TooManyRequests(time.Minute))
	c.Unscript()
	if a := c.refresh(refresh); a.status != 200 {
		t.Errorf("a removed answer was given: %d", a.status)
	}
}

func TestChangedAtEachPresentation(t *testing.T) {
	c := newClient(t)
	_, refresh := c.pair()
	release := make(chan struct{})
	c.Script(procoretest.Blocked(release))
	changed, before := c.Changed(), len(c.Presentations())
	select {
	case <-changed:
		t.Fatal("changed without a presentation")
	default:
	}
	answered := make(chan answer, 1)
	go func() { answered <- c.refresh(refresh) }()
	<-changed // before the answer, which is still blocked
	if p := c.Presentations(); len(p) != before+1 || p[before].Outcome != "granted" {
		t.Errorf("presentations: %+v", p)
	}
	close(release)
	if a := <-answered; a.status != 200 {
		t.Errorf("%d", a.status)
	}
}
