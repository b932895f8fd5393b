package rotation

// Step is a row of the plan.
type Step string

// The rows, in the order in which plan tries them.
const (
	Decide  Step = "decide"
	Publish Step = "publish"
	Hold    Step = "hold"
	Wait    Step = "wait"
	Look    Step = "look"
	Redeem  Step = "redeem"
	Revoke  Step = "revoke"
	Nothing Step = "nothing"
)

// Outcome is what a run reports of one connection.
type Outcome string

const (
	Rotated       Outcome = "rotated"
	Published     Outcome = "published"
	Recovered     Outcome = "recovered" // an earlier run's pair was found and finished
	Fresh         Outcome = "fresh"     // nothing to do
	Busy          Outcome = "busy"      // another attempt is live
	Deferred      Outcome = "deferred"  // asked to wait, or no time left in this run
	Unknown       Outcome = "unknown"   // the answer was lost; looked into after the quiet period
	Held          Outcome = "quarantined"
	ConsentNeeded Outcome = "needs_consent"
	NotFound      Outcome = "not_found"
	ConfigError   Outcome = "config_error"
	Failed        Outcome = "failed"
)
