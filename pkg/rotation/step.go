package rotation

// Step is what a run does next for one connection.
type Step string

// The steps. Their order of precedence is that of the moves in plan.go.
const (
	Decide     Step = "decide"
	Publish    Step = "publish"
	Quarantine Step = "hold"
	Wait       Step = "wait"
	Recover    Step = "look"
	Redeem     Step = "redeem"
	Revoke     Step = "revoke"
	Nothing    Step = "nothing"
)

// Outcome is what a run reports of one connection.
type Outcome string

const (
	Rotated       Outcome = "rotated"
	Published     Outcome = "published"
	Recovered     Outcome = "recovered" // an earlier run's pair was found and finished, or a refused token works again
	Fresh         Outcome = "fresh"     // nothing to do
	Busy          Outcome = "busy"      // another attempt is live
	Deferred      Outcome = "deferred"  // asked to wait, or no time left in this run
	Unknown       Outcome = "unknown"   // the answer was lost; recovered after the quiet period
	InQuarantine  Outcome = "quarantined"
	ConsentNeeded Outcome = "needs_consent"
	NotFound      Outcome = "not_found"
	ConfigError   Outcome = "config_error"
	Failed        Outcome = "failed"
)
