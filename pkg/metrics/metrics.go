// Package metrics measures the functions. What is measured becomes lines of the
// function's log in CloudWatch's embedded metric format, of which CloudWatch
// makes metrics of the namespace tokenturn:
//
//	metric          dimensions besides stack   meaning
//	Sweeps                                     a sweep that was completed
//	Connections     environment, outcome       a connection that was handled
//	TokenLifeLeft   environment                seconds that the access token still lives when its connection was handled;
//	                                           negative for how long there had been none, where the new one came too late
//	SecretVersions  environment                versions that the secret was given in 24 hours
//	Unpublished     environment                a pair that is saved, and that the secret does not show yet
//	RedeemLatency   environment                milliseconds that one POST to the token endpoint took
//	Notices         environment, kind          a notice to people
//	Denied          service                    a call that AWS denied, for lack of a right or of a usable key
//	Consents        environment, outcome       a consent that came to its end
//	StateReuses     environment                a redirect whose state had been used already
//
// Each is there for the stack alone, too, or with outcome or kind alone, so that
// one alarm can watch all environments. Connections are named in properties of
// the line, which CloudWatch Logs can search: as a dimension each of them would
// be a metric to pay for.
//
// Nothing is written before Flush, for nothing may stand between an answer of the
// token endpoint and its saving.
//
// See
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
package metrics

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"sync"
	"time"
)

// Namespace is where CloudWatch keeps the metrics.
const Namespace = "tokenturn"

// Meter collects measurements until Flush. A nil Meter measures nothing. It is
// safe for concurrent use.
type Meter struct {
	out   io.Writer
	stack string
	now   func() time.Time

	mu    sync.Mutex
	lines bytes.Buffer
}

// New returns a meter of the installation that writes to out, the function's log.
func New(out io.Writer, stack string, now func() time.Time) *Meter {
	return &Meter{out: out, stack: stack, now: now}
}

// Flush writes what was measured. Call it at the end of each event: Lambda may
// freeze the process afterwards.
func (m *Meter) Flush() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _ = m.lines.WriteTo(m.out) // there is nobody to tell but the same log
	m.lines.Reset()
}

// The units that are used.
const (
	count        = "Count"
	seconds      = "Seconds"
	milliseconds = "Milliseconds"
)

// measure is a metric directive with the values of its metrics. Every set of
// dimensions begins with the stack.
type measure struct {
	dimensions [][]string
	values     []value
}

type value struct {
	name, unit string
	value      float64
}

// byEnvironment measures for the environment and for the stack as a whole.
func byEnvironment(values ...value) measure {
	return measure{[][]string{{"stack", "environment"}, {"stack"}}, values}
}

// by measures for the environment with what the dimension says, and for the
// latter alone.
func by(dimension string, values ...value) measure {
	return measure{[][]string{{"stack", "environment", dimension}, {"stack", dimension}}, values}
}

// directive is a measure in the words of the specification.
type directive struct {
	Namespace  string
	Dimensions [][]string
	Metrics    []definition
}

type definition struct{ Name, Unit string }

// record adds one line. Properties hold the values of all dimensions but the stack.
func (m *Meter) record(properties map[string]any, measures ...measure) {
	if m == nil {
		return
	}
	line := maps.Clone(properties)
	line["stack"] = m.stack
	var directives []directive
	for _, measured := range measures {
		d := directive{Namespace: Namespace, Dimensions: measured.dimensions}
		for _, v := range measured.values {
			d.Metrics = append(d.Metrics, definition{v.name, v.unit})
			line[v.name] = v.value
		}
		directives = append(directives, d)
	}
	line["_aws"] = map[string]any{"Timestamp": m.now().UnixMilli(), "CloudWatchMetrics": directives}
	text, err := json.Marshal(line)
	if err != nil {
		panic("metrics: " + err.Error()) // only texts and finite numbers come here
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lines.Write(append(text, '\n'))
}
