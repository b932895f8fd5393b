package console

// The states of an Experiment.
const (
	Ready   = "ready"
	Running = "running"
	Done    = "done"
	Failed  = "failed"
)

// Tone is the class of its card.
func (e Experiment) Tone() string {
	switch e.State {
	case Running:
		return "info"
	case Done:
		return "good"
	case Failed:
		return "bad"
	}
	return ""
}

// Says is its state in words; empty: it has not been started.
func (e Experiment) Says() string {
	switch e.State {
	case Running:
		return "running"
	case Done:
		return "went as promised"
	case Failed:
		return "did not go as promised"
	}
	return ""
}

// Now reports whether the step is the one that is waited for.
func (e Experiment) Now(step int) bool {
	return e.State == Running && !e.Steps[step].Done && (step == 0 || e.Steps[step-1].Done)
}
