package metrics

import (
	"context"
	"slices"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// Report measures the result of a run.
func (m *Meter) Report(report rotation.Report) {
	if m == nil {
		return
	}
	if report.Op == "sweep" && !report.Skipped {
		m.record(map[string]any{"due": report.Due, "handed_on": report.HandedOn, "duration_ms": report.Duration},
			measure{[][]string{{"stack"}}, []value{{"Sweeps", count, 1}}})
	}
	for _, c := range report.Connections {
		m.connection(c)
	}
}

// inOrder lists the outcomes of a connection that needed nothing, or that another run
// is about to finish. The remaining life of its token then says nothing: by the rule
// of due times it is sufficient.
var inOrder = []rotation.Outcome{rotation.Fresh, rotation.Busy, rotation.NotFound, rotation.ConsentNeeded}

func (m *Meter) connection(c rotation.ConnectionReport) {
	properties := map[string]any{"environment": c.Connection.Environment, "outcome": c.Outcome,
		"connection": c.Connection.String()}
	if c.Detail != "" {
		properties["detail"] = c.Detail
	}
	var state []value
	if !c.ExpiresAt.IsZero() && !slices.Contains(inOrder, c.Outcome) {
		left := c.ExpiresAt.Sub(m.now())
		if c.Lapsed > 0 { // works now, but was renewed too late
			left = -c.Lapsed
		}
		state = append(state, value{"TokenLifeLeft", seconds, left.Round(time.Second).Seconds()})
	}
	if c.Versions > 0 {
		state = append(state, value{"SecretVersions", count, float64(c.Versions)})
	}
	if c.Unpublished {
		state = append(state, value{"Unpublished", count, 1})
	}
	measures := []measure{by("outcome", value{"Connections", count, 1})}
	if state != nil {
		measures = append(measures, byEnvironment(state...))
	}
	m.record(properties, measures...)
}

// Notifier measures notices and passes them to next, which may be nil.
func (m *Meter) Notifier(next rotation.Notifier) rotation.Notifier {
	if m == nil {
		return next
	}
	return notifier{m, next}
}

type notifier struct {
	meter *Meter
	next  rotation.Notifier
}

// Notify implements rotation.Notifier. The line does not contain the
// summary, because the engine has logged it.
func (n notifier) Notify(ctx context.Context, notice rotation.Notice) error {
	properties := map[string]any{"environment": notice.Environment, "kind": notice.Kind}
	if !notice.Connection.IsZero() {
		properties["connection"] = notice.Connection.String()
	}
	n.meter.record(properties, by("kind", value{"Notices", count, 1}))
	if n.next == nil {
		return nil
	}
	return n.next.Notify(ctx, notice)
}

// Issuer measures how long the token endpoint takes.
func (m *Meter) Issuer(next rotation.Issuer) rotation.Issuer {
	if m == nil {
		return next
	}
	return issuer{next, m}
}

type issuer struct {
	rotation.Issuer
	meter *Meter
}

// Redeem implements rotation.Issuer. Between receiving the answer and
// saving it, it only adds a line in memory.
func (i issuer) Redeem(ctx context.Context, app rotation.Application, grant rotation.Grant) rotation.Answer {
	started := time.Now()
	answer := i.Issuer.Redeem(ctx, app, grant)
	took := time.Since(started).Milliseconds()
	i.meter.record(map[string]any{"environment": app.Environment, "answer": answer.Class},
		byEnvironment(value{"RedeemLatency", milliseconds, float64(took)}))
	return answer
}
