// Package metrics measures the functions. Measurements become lines of the
// function's log in CloudWatch's embedded metric format, from which CloudWatch
// makes metrics in the namespace tokenturn:
//
//	metric          dimensions besides stack   meaning
//	Sweeps                                     a sweep that was completed
//	Connections     environment, outcome       a connection that was handled
//	TokenLifeLeft   environment                seconds that the access token still lived when its connection was handled;
//	                                           if the new one came too late, negative: the time without a live one
//	SecretVersions  environment                versions that were added to the secret in 24 hours
//	Unpublished     environment                a saved pair that the secret does not show yet
//	RedeemLatency   environment                milliseconds of one POST to the token endpoint
//	Notices         environment, kind          a notice to people
//	Denied          service                    a call that AWS denied, for lack of a permission or of a usable key
//	Consents        environment, outcome       a consent that ended
//	StateReuses     environment                a redirect with a state that had been used already
//	RefusedHosts                               a page that was asked for under another host name, and refused
//
// Each metric also exists for the stack alone, or with outcome or kind alone, so that
// one alarm can watch all environments. Connections are named in properties of the
// line, which CloudWatch Logs can search: as a dimension, each of them would be a
// metric with its own cost.
//
// Nothing is written before Flush, because nothing may happen between receiving an
// answer of the token endpoint and saving it.
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

// Namespace is the namespace of the metrics in CloudWatch.
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

// Flush writes the measurements. Call it at the end of each event: Lambda may freeze
// the process afterwards.
func (m *Meter) Flush() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _ = m.lines.WriteTo(m.out) // an error could only go to the same log
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

// by measures for the environment with the dimension, and for the dimension alone.
func by(dimension string, values ...value) measure {
	return measure{[][]string{{"stack", "environment", dimension}, {"stack", dimension}}, values}
}

// directive is a measure in the form of the specification.
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
	line := map[string]any{}
	maps.Copy(line, properties)
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
		panic("metrics: " + err.Error()) // only texts and finite numbers are passed
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lines.Write(append(text, '\n'))
}
