package infra_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenturn/tokenturn/pkg/doctor"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/rotation/rotationtest"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// fault is what happens to a simulated installation an hour after it was made, and
// the alarms that must go off: these and no others.
type fault struct {
	name   string
	happen func(*installation)
	alarms []string
}

var faults = []fault{
	{"nothing", func(i *installation) { i.hours(2) }, nil},
	// Seen 66 minutes after the last sweep (goneOff adds a period), and before a token of 90 minutes ends.
	{"the schedule does not come", func(*installation) { time.Sleep(61 * time.Minute) }, []string{"NoHeartbeat"}},
	{"the schedule comes back too late", func(i *installation) {
		time.Sleep(2 * time.Hour)
		i.sweep()
	}, []string{"NoHeartbeat", "TokenLifeLeft"}},
	{"the store that lists what is due is down", func(i *installation) {
		i.gate(rotationtest.Always("ledger.Due", rotationtest.Before, rotationtest.Fault{Kind: rotationtest.Fail}))
		i.hours(2)
	}, []string{"NoHeartbeat"}},
	{"Procore cannot be reached", func(i *installation) {
		i.gate(rotationtest.Always("issuer.Redeem", rotationtest.Before, rotationtest.Fault{Kind: rotationtest.Unsent}))
		i.hours(2)
	}, []string{"TokenLifeLeft"}},
	{"the person withdraws the consent", func(i *installation) {
		i.Issuer.Withdraw(i.ctx, i.shown().AccessToken)
		i.hours(1)
	}, []string{"NeedsConsent"}},
	{"an answer is lost", func(i *installation) {
		i.Issuer.Personality.Overlap = true // so that presenting again heals it
		i.gate(rotationtest.Nth(1, "issuer.Redeem", rotationtest.After, rotationtest.Fault{Kind: rotationtest.Fail}))
		i.hours(1)
	}, []string{"Unknown"}},
	{"the secret takes no new version", func(i *installation) {
		i.gate(rotationtest.Always("secrets.Put", rotationtest.Before, rotationtest.Fault{Kind: rotationtest.Throttle}))
		i.hours(1)
		i.gate(nil)
		i.hours(1)
	}, []string{"Unpublished"}},
	{"an answer contradicts itself", func(i *installation) {
		i.twist = func(body string) string { return body + `{"refresh_token":"another"}` }
		i.hours(1)
	}, []string{"Quarantined"}},
	{"somebody edits the secret", func(i *installation) {
		_ = i.SecretStore.Edit(i.ctx, acme, token.NewSecret(`{"hello":"operator"}`))
		i.hours(1)
	}, []string{"Drift"}},
	{"neither store takes the answer", func(i *installation) {
		i.Issuer.Personality.Overlap = true
		i.gate(rotationtest.Gates(rotationtest.Always("ledger.SaveResponse", rotationtest.Before,
			rotationtest.Fault{Kind: rotationtest.Fail}),
			rotationtest.Always("secrets.Put", rotationtest.Before, rotationtest.Fault{Kind: rotationtest.Fail})))
		i.hours(1)
		i.gate(nil)
		i.hours(1)
	}, []string{"TokenLifeLeft", "Unsaved", "Unknown"}},
	{"the app credentials are refused", func(i *installation) {
		i.gate(rotationtest.Nth(1, "issuer.Redeem", rotationtest.Before, rotationtest.Fault{Kind: rotationtest.Deny}))
		i.hours(1)
	}, []string{"ConfigError"}},
	{"the row cannot be read", func(i *installation) {
		i.gate(rotationtest.Nth(1, "ledger.Load", rotationtest.Before, rotationtest.Fault{Kind: rotationtest.Fail}))
		i.hours(1)
	}, []string{"Failed"}},
	{"somebody rotates every quarter of an hour", func(i *installation) {
		for range 90 {
			time.Sleep(15 * time.Minute)
			i.run(rotation.Request{Op: "rotate", Connection: acme.String()})
			i.sweep()
		}
	}, []string{"SecretVersions"}},
	{"a redirect is sent over and over", func(i *installation) {
		again := i.connect()
		for range 12 {
			again()
		}
		i.hours(1)
	}, []string{"StateReuse"}},
	{"a proxy replaces the Host header", func(i *installation) {
		if answer := i.visit(httptest.NewRequest("GET", "https://proxy.example/connected", nil)); answer.StatusCode != 400 {
			i.t.Errorf("the page answers %d", answer.StatusCode)
		}
		i.hours(1)
	}, []string{"RefusedHosts"}},
	{"KMS denies a data key", func(i *installation) {
		i.log.WriteString(i.denied)
		i.hours(1)
	}, []string{"Denied"}},
	// What AWS measures itself.
	{"the rotate function fails", given("AWS/Lambda Errors FunctionName=example-RotateFunction", 1),
		[]string{"RotateErrors"}},
	{"the callback function fails", given("AWS/Lambda Errors FunctionName=example-CallbackFunction", 1),
		[]string{"CallbackErrors"}},
	{"rotate is throttled", given("AWS/Lambda Throttles FunctionName=example-RotateFunction", 1),
		[]string{"RotateThrottles"}},
	{"callback is throttled", given("AWS/Lambda Throttles FunctionName=example-CallbackFunction", 1),
		[]string{"CallbackThrottles"}},
	{"a run takes its whole time", given("AWS/Lambda Duration FunctionName=example-RotateFunction", 899_900),
		[]string{"RotateDuration"}},
	// and hands it on
	{"a run has more to do than it can", given("AWS/Lambda Duration FunctionName=example-RotateFunction", 866_000), nil},
	{"the callback takes longer than the API waits", given("AWS/Lambda Duration FunctionName=example-CallbackFunction",
		31_000), []string{"CallbackDuration"}},
	{"a follow-up is given up", given("AWS/SQS ApproximateNumberOfMessagesVisible QueueName=example-DeadLetters", 1),
		[]string{"DeadLetterDepth"}},
	{"a follow-up fails twice", given("AWS/SQS ApproximateAgeOfOldestMessage QueueName=example-FollowUps", 1860),
		[]string{"Backlog"}},
	// and works until its timeout
	{"a follow-up waits as long as it can", given("AWS/SQS ApproximateAgeOfOldestMessage QueueName=example-FollowUps",
		1800), nil},
	{"a sweep is lost", given("AWS/SQS ApproximateNumberOfMessagesVisible QueueName=example-LostSweeps", 1),
		[]string{"LostSweepDepth"}},
	{"reads are throttled", given("AWS/DynamoDB ReadThrottleEvents TableName=example-Table", 3),
		[]string{"TableReadThrottle"}},
	{"writes are throttled", given("AWS/DynamoDB WriteThrottleEvents TableName=example-Table", 3),
		[]string{"TableWriteThrottle"}},
	{"the index is read too fast", given("AWS/DynamoDB ReadThrottleEvents GlobalSecondaryIndexName=due "+
		"TableName=example-Table", 3), []string{"IndexReadThrottle"}},
	{"the index is written too fast", given("AWS/DynamoDB WriteThrottleEvents GlobalSecondaryIndexName=due "+
		"TableName=example-Table", 3), []string{"IndexWriteThrottle"}},
	{"the API answers 503", given("AWS/ApiGateway 5xx ApiId=abcdefghij", 1), []string{"ServerErrors"}},
}

// given is a fault that shows only in a metric of AWS.
func given(metric string, value float64) func(*installation) {
	return func(i *installation) {
		i.cloud.put(metric, time.Now(), value)
		i.hours(1)
	}
}

// Each alarm of the template goes off at its fault, on the lines that the
// functions write, and no other does.
func TestEachAlarmGoesOffAtItsFault(t *testing.T) {
	alarms, denied := load(t, main).alarms(nil), deniedLine(t)
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := install(t, rotationtest.Personality{})
				i.denied = denied
				i.connect()
				i.hours(1)
				from := time.Now()
				f.happen(i)
				off := i.goneOff(alarms, from)
				if want := slices.Sorted(slices.Values(f.alarms)); !slices.Equal(off, want) {
					t.Errorf("went off: %v, want %v\n%s", off, want, i.log.String())
				}
			})
		})
	}
	for _, a := range alarms {
		if !slices.ContainsFunc(faults, func(f fault) bool { return slices.Contains(f.alarms, a.id) }) {
			t.Errorf("no fault sets off %s, which watches %s", a.id, a.metric)
		}
	}
}

// no-heartbeat is silent while sweeps come as late as they may. When they stop, it goes off
// while every token lives: after a sweep, none has less than the time to the next one and the
// margin of ten minutes, and one of 5,400 s that each hourly sweep replaces has 90. With a
// flexible window, or a schedule between the template's steps, the first may just have expired.
func TestNoHeartbeatGoesOffBeforeTokensDie(t *testing.T) {
	tmpl := load(t, main)
	for minutes := 1; minutes <= 60; minutes++ {
		schedule, lives := fmt.Sprintf("rate(%d minutes)", minutes), minutes+10
		switch minutes {
		case 1:
			schedule = "rate(1 minute)"
		case 60:
			schedule, lives = "rate(1 hour)", 90
		}
		for _, window := range []int{0, 5} {
			alarms := tmpl.alarms(map[string]any{"Schedule": schedule, "FlexibleWindowMinutes": window})
			heartbeat := alarms[slices.IndexFunc(alarms, func(a alarm) bool { return a.id == "NoHeartbeat" })]
			cloud, from := cloudwatch{}, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
			last := from
			for n := range 6 * 60 / minutes { // by turns on time and as late as it may be
				last = from.Add(time.Duration(n*minutes+n%2*window) * time.Minute)
				cloud.put(heartbeat.metric, last, 1)
			}
			sweeps := cloud[heartbeat.metric]
			if off := heartbeat.firstOff(sweeps, from, last); off != 0 {
				t.Errorf("%s, window of %d: it goes off after %d minutes, though sweeps come", schedule, window, off)
			}
			off := heartbeat.firstOff(sweeps, last, last.Add(100*time.Minute))
			limit := int64(lives)
			if window > 0 || minutes > 30 && minutes%10 != 0 { // see the page
				limit += 10
			}
			if off == 0 || off > limit {
				t.Errorf("%s, window of %d: it goes off %d minutes after the last sweep; tokens live for %d", schedule, window,
					off, lives)
			}
		}
	}
	for schedule, want := range map[string]int64{"rate(1 hour)": 66, "rate(30 minutes)": 36, "rate(5 minutes)": 11} {
		alarms := tmpl.alarms(map[string]any{"Schedule": schedule})
		heartbeat := alarms[slices.IndexFunc(alarms, func(a alarm) bool { return a.id == "NoHeartbeat" })]
		cloud, last := cloudwatch{}, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
		cloud.put(heartbeat.metric, last, 1)
		if off := heartbeat.firstOff(cloud[heartbeat.metric], last, last.Add(2*time.Hour)); off != want {
			t.Errorf("%s: it goes off after %d minutes, and the page says %d", schedule, off, want-1)
		}
	}
}

// The health check takes the road that visitors take: behind a proxy that replaces the Host header, where each page is
// refused, doctor finds a problem, and /healthz still answers.
func TestDoctorSeesAProxyThatReplacesTheHost(t *testing.T) {
	i := install(t, rotationtest.Personality{})
	for name, c := range map[string]struct{ host, problem string }{
		"kept": {"example.com", ""},
		"replaced": {"abcdefghij.execute-api.us-east-1.amazonaws.com", "/connected answers HTTP 400: the request arrived " +
			"with another host name than the public URL's"},
	} {
		t.Run(name, func(t *testing.T) {
			proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.Host = c.host
				i.server.ServeHTTP(w, r)
			}))
			defer proxy.Close()
			address, err := url.Parse(proxy.URL + "/callback/sandbox")
			if err != nil {
				t.Fatal(err)
			}
			switch err := doctor.New(doctor.Config{}).Reach(t.Context(), address); {
			case c.problem == "" && err != nil:
				t.Error(err)
			case c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)):
				t.Errorf("got %v, want %s", err, c.problem)
			}
			if answer, err := proxy.Client().Get(proxy.URL + "/healthz"); err != nil || answer.StatusCode != 200 {
				t.Errorf("/healthz: %v, %v", answer, err)
			}
		})
	}
}

// A month without faults sets off none, though people reload pages, runs take
// their time, and messages come twice.
func TestAFaultlessMonthSetsOffNoAlarm(t *testing.T) {
	alarms := load(t, main).alarms(nil)
	for _, c := range []struct {
		lifetime time.Duration
		days     int
		but      []string
	}{
		{90 * time.Minute, 30, nil},
		// Some 97 versions a day are near the limit indeed, and there is no other way.
		{15 * time.Minute, 3, []string{"SecretVersions"}},
	} {
		t.Run("tokens of "+c.lifetime.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := install(t, rotationtest.Personality{Lifetime: c.lifetime})
				from := time.Now()
				again := i.connect()
				again()
				for range c.days {
					i.hours(24)
					for metric, value := range map[string]float64{"AWS/Lambda Duration FunctionName=example-RotateFunction": 4_000,
						"AWS/Lambda Errors FunctionName=example-RotateFunction":                    0,
						"AWS/Lambda Duration FunctionName=example-CallbackFunction":                2_500,
						"AWS/SQS ApproximateNumberOfMessagesVisible QueueName=example-DeadLetters": 0,
						"AWS/ApiGateway 5xx ApiId=abcdefghij":                                      0} {
						i.cloud.put(metric, time.Now(), value)
					}
				}
				if off := i.goneOff(alarms, from); !slices.Equal(off, c.but) {
					t.Errorf("went off: %v, want %v", off, c.but)
				}
				var swept, rotated float64
				for _, p := range i.cloud["tokenturn Sweeps stack=example"] {
					swept += p.sum
				}
				for _, p := range i.cloud["tokenturn Connections environment=sandbox outcome=rotated stack=example"] {
					rotated += p.sum
				}
				if swept < float64(c.days*24) || rotated < float64(c.days*24) {
					t.Errorf("%v sweeps and %v rotations were measured", swept, rotated)
				}
			})
		})
	}
}

// The dashboard is JSON, and shows what the functions measure under the dimensions
// that they measure it under.
func TestDashboardShowsWhatIsMeasured(t *testing.T) {
	tmpl := load(t, main)
	body := text(tmpl.resolve(tmpl.resource("Dashboard").at("DashboardBody"), tmpl.values(nil)))
	var dashboard struct {
		Widgets []struct {
			Properties struct {
				Title   string
				Metrics [][]any
			}
		}
	}
	if err := json.Unmarshal([]byte(body), &dashboard); err != nil {
		t.Fatalf("%v\n%s", err, body)
	}
	synctest.Test(t, func(t *testing.T) {
		i := install(t, rotationtest.Personality{})
		i.connect()
		_ = i.SecretStore.Edit(i.ctx, acme, token.NewSecret(`{"hello":"operator"}`)) // which gives a notice
		i.hours(1)
		i.check(i.cloud.take(i.log.String()))
		measured := func(name, dimensions string) bool {
			for key := range i.cloud {
				fields := strings.Fields(key)
				var has []string
				for _, field := range fields[2:] {
					dimension, _, _ := strings.Cut(field, "=")
					has = append(has, dimension)
				}
				want := strings.Split(dimensions, ",")
				slices.Sort(want)
				if fields[0] == "tokenturn" && fields[1] == name && slices.Equal(has, want) {
					return true
				}
			}
			return false
		}
		search := regexp.MustCompile(`^SEARCH\('\{tokenturn,([a-z,]+)\} stack="example" MetricName="(\w+)"', '\w+', \d+\)$`)
		for _, widget := range dashboard.Widgets {
			for _, metric := range widget.Properties.Metrics {
				if expression, ok := object(metric[0])["expression"].(string); ok {
					parts := search.FindStringSubmatch(expression)
					if parts == nil || !measured(parts[2], parts[1]) {
						t.Errorf("%s: nothing is measured that %s could find", widget.Properties.Title, expression)
					}
				} else if metric[0] == "tokenturn" && !measured(text(metric[1]), text(metric[2])) {
					t.Errorf("%s: %v is not measured", widget.Properties.Title, metric)
				}
			}
		}
		if len(dashboard.Widgets) < 4 {
			t.Errorf("%d widgets", len(dashboard.Widgets))
		}
	})
}

// What is measured is what the package comment of pkg/metrics promises, no
// connection is a dimension, and no secret is in any line.
func TestMetricLinesNameNoSecretAndNoConnectionAsDimension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := install(t, rotationtest.Personality{})
		i.connect()
		i.hours(3)
		log := i.log.String()
		if err := i.cloud.take(log); err != nil {
			t.Fatal(err)
		}
		for _, metric := range []string{"Sweeps stack=example", "Connections environment=sandbox outcome=rotated " +
			"stack=example", "Connections outcome=rotated stack=example",
			"TokenLifeLeft environment=sandbox stack=example", "SecretVersions stack=example",
			"RedeemLatency environment=sandbox stack=example",
			"Consents environment=sandbox outcome=connected stack=example"} {
			if i.cloud["tokenturn "+metric] == nil {
				t.Errorf("nothing was measured as %s; there are %v", metric, slices.Sorted(maps.Keys(i.cloud)))
			}
		}
		for metric := range i.cloud {
			if strings.Contains(metric, "acme") {
				t.Errorf("every connection costs a metric: %s", metric)
			}
		}
		if !strings.Contains(log, `"connection":"sandbox/acme"`) {
			t.Error("no line can be found by its connection")
		}
		access, others := i.Issuer.Secrets()
		for _, secret := range slices.Concat(access, others) {
			if strings.Contains(log, secret.Reveal()) {
				t.Fatal("a secret is in the log")
			}
		}
		for _, word := range []string{"https://", "state=", "code="} {
			if strings.Contains(log, word) {
				t.Errorf("%s is in the log:\n%s", word, log)
			}
		}
	})
}

var acme = token.Connection{Environment: "sandbox", Name: "acme"}
