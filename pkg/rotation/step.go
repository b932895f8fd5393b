package rotation

// Step is a row of the plan.
type Step string

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
