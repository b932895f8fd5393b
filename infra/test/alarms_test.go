package infra_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// series is the datapoints of one metric, each at its minute.
type series map[int64]*statistics

// statistics of one or more datapoints.
type statistics struct{ sum, least, most float64 }

func (s *statistics) add(v statistics) {
	s.sum, s.least, s.most = s.sum+v.sum, min(s.least, v.least), max(s.most, v.most)
}

// cloudwatch is the metrics that CloudWatch has of a stack, by namespace, name
// and dimensions.
type cloudwatch map[string]series

func metricKey(namespace, name string, dimensions map[string]string) string {
	key := namespace + " " + name
	for _, dimension := range slices.Sorted(maps.Keys(dimensions)) {
		key += " " + dimension + "=" + dimensions[dimension]
	}
	return key
}

func (c cloudwatch) put(key string, at time.Time, value float64) {
	if c[key] == nil {
		c[key] = series{}
	}
	minute, point := at.Unix()/60, statistics{value, value, value}
	if c[key][minute] == nil {
		c[key][minute] = &point
		return
	}
	c[key][minute].add(point)
}

// embedded is a log line of the embedded metric format:
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
type embedded struct {
	AWS struct {
		Timestamp         int64
		CloudWatchMetrics []struct {
			Namespace  string
			Dimensions [][]string
			Metrics    []struct{ Name, Unit string }
		}
	} `json:"_aws"`
}

// take turns the log lines in the embedded metric format into metrics. What
// CloudWatch would drop silently is an error.
func (c cloudwatch) take(log string) error {
	for line := range strings.Lines(log) {
		var e embedded
		var root map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
		if e.AWS.CloudWatchMetrics == nil { // any other line
			continue
		}
		if err := json.Unmarshal([]byte(line), &root); err != nil {
			return err
		}
		for _, directive := range e.AWS.CloudWatchMetrics {
			for _, names := range directive.Dimensions {
				dimensions := map[string]string{}
				for _, name := range names {
					dimensions[name], _ = root[name].(string)
				}
				if len(names) == 0 || slices.Contains(slices.Collect(maps.Values(dimensions)), "") {
					return fmt.Errorf("a dimension is missing or empty: %s", line)
				}
				for _, metric := range directive.Metrics {
					value, ok := root[metric.Name].(float64)
					if !ok {
						return fmt.Errorf("%s is not there: %s", metric.Name, line)
					}
					c.put(metricKey(directive.Namespace, metric.Name, dimensions), time.UnixMilli(e.AWS.Timestamp), value)
				}
			}
		}
	}
	return nil
}

// alarm is an AWS::CloudWatch::Alarm on one metric.
type alarm struct {
	id, metric, statistic, comparison, missing string
	filled                                     bool  // where there is nothing, with 0
	period                                     int64 // minutes
	periods, datapoints                        int
	threshold                                  float64
}

// alarms are those of the stack with the default parameters, unless given.
func (t template) alarms(given map[string]any) (all []alarm) {
	values := t.values(given)
	for id, r := range t.ofType("AWS::CloudWatch::Alarm") {
		metric, filled := watched(r)
		dimensions := map[string]string{}
		for _, d := range list(metric.at("Dimensions")) {
			dimensions[text(object(d)["Name"])] = text(t.resolve(object(d)["Value"], values))
		}
		number := func(property any) float64 {
			switch n := t.resolve(property, values).(type) {
			case int:
				return float64(n)
			case float64:
				return n
			}
			return 0
		}
		a := alarm{id: strings.TrimSuffix(id, "Alarm"), metric: metricKey(text(metric.at("Namespace")),
			text(metric.at("MetricName")), dimensions),
			statistic: text(metric.at("Statistic")), comparison: text(r.at("ComparisonOperator")),
			missing: text(r.at("TreatMissingData")), filled: filled,
			period: int64(number(metric.at("Period"))) / 60, periods: int(number(r.at("EvaluationPeriods"))),
			datapoints: int(number(r.at("DatapointsToAlarm"))), threshold: number(r.at("Threshold"))}
		if a.datapoints == 0 {
			a.datapoints = a.periods
		}
		all = append(all, a)
	}
	return all
}

// goesOff reports whether the alarm would be in the state ALARM at any minute
// between from and to.
func (a alarm) goesOff(measured series, from, to time.Time) bool {
	return a.firstOff(measured, from, to) > 0
}

// firstOff is the first minute after from at which the alarm is in the state ALARM,
// or 0. At each minute it evaluates the periods before it, as CloudWatch does for
// periods of a minute and more. (CloudWatch also looks further back for missing
// points: see missingData.)
func (a alarm) firstOff(measured series, from, to time.Time) int64 {
	points := make([]*statistics, to.Unix()/60-from.Unix()/60) // by minute
	for n := range points {
		points[n] = measured[from.Unix()/60+int64(n)]
	}
	for minute := a.period * int64(a.periods); minute <= int64(len(points)); minute++ {
		breaching := 0
		for n := range int64(a.periods) {
			if begin := minute - (n+1)*a.period; a.breaches(points[begin : begin+a.period]) {
				breaching++
			}
		}
		if breaching >= a.datapoints {
			return minute
		}
	}
	return 0
}

// breaches looks at one period.
func (a alarm) breaches(points []*statistics) bool {
	var all *statistics
	for _, p := range points {
		switch {
		case p == nil:
		case all == nil:
			all = &statistics{p.sum, p.least, p.most}
		default:
			all.add(*p)
		}
	}
	if all == nil && a.filled {
		all = &statistics{}
	}
	if all == nil {
		return a.missing == "breaching"
	}
	value, known := map[string]float64{"Sum": all.sum, "Minimum": all.least, "Maximum": all.most}[a.statistic]
	switch a.comparison {
	case "LessThanThreshold":
		return known && value < a.threshold
	case "GreaterThanOrEqualToThreshold":
		return known && value >= a.threshold
	}
	panic(a.id + " compares in a way that this simulation does not know: " + a.comparison)
}
