package rotation

import (
	"strings"
	"testing"
	"time"
)

// A refresh without a result is in progress as long as its POST may take. After that, people
// are told that nothing is in progress and when tokenturn checks again.
func TestRefreshWithoutAResult(t *testing.T) {
	settings := DefaultSettings("test")
	begun := noon.Add(time.Hour)
	plain := active()
	rec := plain
	rec.Attempt = &Attempt{BegunAt: begun, Until: begun.Add(settings.Lease), Presentations: 1}
	elsewhere := rec // with a shorter lease and quiet period
	elsewhere.Attempt = &Attempt{BegunAt: begun, Until: begun.Add(9 * time.Second), Presentations: 1}
	elsewhere.DueAt = begun.Add(11 * time.Second)
	account := rec
	account.ServiceAccount = true
	for name, test := range map[string]struct {
		rec    Record
		after  time.Duration
		says   []string
		hidden string
	}{
		"seconds old": {rec, 4 * time.Second, []string{"another process", "at 13:00:00", "automatically at 13:03:00"},
			"lost"},
		"lost": {rec, settings.RedeemTimeout, []string{"was lost", "at 13:03:00", "works until 13:30:00, unless"},
			"another"},
		"lease over": {rec, 2 * time.Minute, []string{"was lost", "at 13:03:00", "works until 13:30:00, unless"},
			"another"},
		"other settings":  {elsewhere, 9 * time.Second, []string{"was lost", "automatically at 13:00:11"}, "another"},
		"token expired":   {rec, time.Hour, []string{"was lost", "with its next run"}, "works until"},
		"service account": {account, settings.RedeemTimeout, []string{"at 13:01:00", "works until 13:30:00"}, "unless"},
	} {
		said := settings.Refreshing(test.rec, begun.Add(test.after)).Describe(func(t time.Time) string {
			return t.Format(time.TimeOnly)
		})
		for _, want := range test.says {
			if !strings.Contains(said, want) {
				t.Errorf("%s: %q is not in %q", name, want, said)
			}
		}
		if strings.Contains(said, test.hidden) {
			t.Errorf("%s: %q is in %q", name, test.hidden, said)
		}
	}
	if r := settings.Refreshing(plain, begun); r != nil {
		t.Errorf("without an attempt: %+v", r)
	}
}

// A quarantine waits without a detail of its own.
func TestFailureSummary(t *testing.T) {
	f := Failure{Step: Decide, Class: "quarantine", Count: 1}
	if got := f.Summary(); got != "decide failed once (quarantine)" {
		t.Error(got)
	}
	f.Count, f.Detail = 2, "the encoding of the answer is unknown"
	if got := f.Summary(); got != "decide failed 2 times in a row (quarantine): the encoding of the answer is unknown" {
		t.Error(got)
	}
}
