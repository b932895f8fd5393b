package rotation

// Step is what a run does next for one connection.
type Step string

// The steps. situation.moves in plan.go has their order of precedence.
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

// Outcome is the result that a run reports for one connection.
type Outcome string

const (
	Rotated       Outcome = "rotated"
	Published     Outcome = "published"
	Recovered     Outcome = "recovered" // an earlier run's pair was found and finished, or a refused token works again
	Fresh         Outcome = "fresh"     // nothing to do
	Busy          Outcome = "busy"      // another attempt is live
	Deferred      Outcome = "deferred"  // back-off, a wait that the server asked for, or no time left in this run
	Unknown       Outcome = "unknown"   // the answer was lost; recovered after the quiet period
	InQuarantine  Outcome = "quarantined"
	ConsentNeeded Outcome = "needs_consent"
	NotFound      Outcome = "not_found"
	ConfigError   Outcome = "config_error"
	Failed        Outcome = "failed"
)
