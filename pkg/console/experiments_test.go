package console_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/console"
)

// faults are experiments of a test.
type faults struct {
	mu      sync.Mutex
	all     []console.Experiment
	changed chan struct{}
	started []string
}

func (f *faults) Experiments() []console.Experiment {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.all)
}

func (f *faults) Start(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.started = append(f.started, name)
	if name != f.all[0].Name {
		return errors.New("There is no <such> experiment.")
	}
	return nil
}

func (f *faults) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// become changes the first experiment.
func (f *faults) become(e console.Experiment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append([]console.Experiment{e}, f.all[1:]...)
	close(f.changed)
	f.changed = make(chan struct{})
}

func TestThePanelStartsExperimentsAndTicksOffSteps(t *testing.T) {
	steps := []console.Step{{Text: "The answer is <lost>."}, {Text: "A new generation appears."}}
	first := console.Experiment{Name: "lose-answer", Title: "Lose an answer", Promise: "tokenturn recovers.", Steps: steps,
		State: console.Ready}
	f := &faults{changed: make(chan struct{}), all: []console.Experiment{first,
		{Name: "other", Title: "Another", State: console.Ready, Wait: "Connect demo/acme first.", Steps: steps}}}
	s := open(t, func(cfg *console.Config) { cfg.Experiments = f })
	s.put(active(acme, 1))

	page := s.get("/").body
	mustContain(t, page, `id="experiments"`,
		`<button form="act" formaction="/experiments/lose-answer" class="second">Lose an answer</button>`, "tokenturn recovers.",
		`formaction="/experiments/other" disabled>`, "Connect demo/acme first.")
	mustNotContain(t, page, "The answer is") // before it is started

	if a := s.post("/experiments/lose-answer"); a.status != http.StatusSeeOther ||
		a.header.Get("Location") != "/#experiments" {
		t.Errorf("started: %d to %s", a.status, a.header.Get("Location"))
	}
	if a := s.post("/experiments/other"); a.status != http.StatusConflict || !strings.Contains(a.body,
		"There is no &lt;such&gt; experiment.") {
		t.Errorf("refused: %d: %s", a.status, a.body)
	}
	if a := s.do("POST", "/experiments/lose-answer", nil, nil); a.status < 400 {
		t.Errorf("without a form of the page: %d", a.status)
	}
	if !slices.Equal(f.started, []string{"lose-answer", "other"}) {
		t.Errorf("started %q", f.started)
	}

	o := s.follow("")
	o.update(t)
	panel := func() string {
		return o.until(t, func(u update) bool { return u.Parts["panel"] != "" }).Parts["panel"]
	}
	first.State, first.Wait, first.Steps = console.Running, "It is running.", slices.Clone(steps)
	first.Steps[0].Done, first.Steps[0].At = true, time.Now()
	f.become(first)
	mustContain(t, panel(), `<section id="panel">`, `<span class="badge info">running</span>`,
		`<li class="done">The answer is &lt;lost&gt;. <span`, `<li class="now" aria-current="step">A new generation appears.</li>`)

	first.State, first.Wait = console.Done, ""
	first.Steps[1].Done, first.Steps[1].At = true, time.Now()
	f.become(first)
	mustContain(t, panel(), `<span class="badge good">went as promised</span>`,
		`<li class="done">A new generation appears.</li>`)

	first.State, first.Why, first.Steps = console.Failed, "not observed: it & that", steps
	f.become(first)
	failed := panel()
	mustContain(t, failed, `<span class="badge bad">did not go as promised</span>`,
		`<p class="notice bad">not observed: it &amp; that</p>`)
	mustNotContain(t, failed, `class="done"`, `class="now"`)
}

func TestThereIsNoPanelWithoutExperiments(t *testing.T) {
	s := open(t, nil)
	mustNotContain(t, s.get("/").body, "/experiments/", `id="experiments"`)
	if a := s.post("/experiments/lose-answer"); a.status != http.StatusNotFound {
		t.Errorf("%d", a.status)
	}
}
