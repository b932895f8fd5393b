package infra_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/consent"
	"github.com/tokenturn/tokenturn/pkg/invitations"
	"github.com/tokenturn/tokenturn/pkg/rotation"
)

// The routes of the API are the routes of the handler, method by method. (To a
// method that it does not have, a handler answers with a list of those it has.)
func TestRoutesAreTheHandlers(t *testing.T) {
	handler, err := consent.New(consent.Config{Store: struct{ invitations.Store }{}, Consents: &rotation.Consents{},
		Applications: noApplications{}, AuthorizeURL: func(rotation.Application, string, string, string) string { return "" },
		PublicURL: "https://example.com", Logger: slog.New(slog.DiscardHandler), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	methods := map[string][]string{}
	for _, route := range load(t, main).ofType("AWS::ApiGatewayV2::Route") {
		method, path, _ := strings.Cut(text(route.at("RouteKey")), " ")
		methods[path] = append(methods[path], method)
	}
	want := map[string][]string{"/connect/{invitation}": {"GET", "POST"}, "/callback/{environment}": {"GET"},
		"/logo/{environment}": {"GET"}, "/connected": {"GET"}, "/not-connected": {"GET"}, "/healthz": {"GET"}}
	for path := range methods {
		slices.Sort(methods[path])
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequest("PATCH", "https://example.com"+path, nil))
		allowed := slices.DeleteFunc(strings.Split(answer.Header().Get("Allow"), ", "),
			func(m string) bool { return m == http.MethodHead })
		if !slices.Equal(allowed, methods[path]) {
			t.Errorf("%s: the API has %v, the handler %v", path, methods[path], allowed)
		}
	}
	if !maps.EqualFunc(methods, want, slices.Equal) {
		t.Errorf("routes %v", methods)
	}
}

type noApplications struct{}

func (noApplications) Application(context.Context, string) (rotation.Application, error) {
	return rotation.Application{}, rotation.ErrNoApplication
}

func integration(t template) (broken []string) {
	i := t.resource("ApiIntegration")
	broken = append(broken, i.differs("PayloadFormatVersion", "2.0")...)
	broken = append(broken, i.differs("IntegrationUri", getAtt("CallbackFunction", "Arn"))...)
	broken = append(broken, i.differs("TimeoutInMillis", 30000)...)
	broken = append(broken, t.resource("ApiInvokesCallback").differs("SourceArn",
		map[string]any{"Fn::Sub": "arn:${AWS::Partition}:execute-api:${AWS::Region}:${AWS::AccountId}:${Api}/$default/*"})...)
	for name, r := range t.ofType("AWS::ApiGatewayV2::Route") {
		if !reflect.DeepEqual(r.at("Target"), map[string]any{"Fn::Sub": "integrations/${ApiIntegration}"}) {
			broken = append(broken, name+" leads elsewhere")
		}
	}
	return broken
}

func accessLog(t template) (broken []string) {
	for name, r := range t.ofType("AWS::ApiGatewayV2::Stage") {
		format := text(r.at("AccessLogSettings.Format"))
		for _, wanted := range []string{"routeKey", "status", "responseLatency", "requestId"} {
			if !strings.Contains(format, "$context."+wanted+"\"") {
				broken = append(broken, name+" does not log "+wanted)
			}
		}
		harmless := []string{"requestTime", "requestId", "routeKey", "status", "responseLatency", "integrationLatency",
			"error.responseType"}
		for _, variable := range regexp.MustCompile(`\$([A-Za-z.]+)`).FindAllStringSubmatch(format, -1) {
			if logged, ok := strings.CutPrefix(variable[1], "context."); !ok || !slices.Contains(harmless, logged) {
				broken = append(broken, name+" logs "+variable[0])
			}
		}
	}
	return broken
}

func throttles(t template) (broken []string) {
	stage := t.resource("ApiStage")
	limit := func(where map[string]any) int {
		rate, _ := where["ThrottlingRateLimit"].(int)
		burst, _ := where["ThrottlingBurstLimit"].(int)
		if rate == 0 || burst < rate {
			broken = append(broken, fmt.Sprint("no proper throttle in ", where))
		}
		return rate
	}
	usual := limit(object(stage.at("DefaultRouteSettings")))
	settings := maps.Clone(object(stage.at("RouteSettings")))
	dependsOn := fmt.Sprint(stage["DependsOn"])
	for name, r := range t.ofType("AWS::ApiGatewayV2::Route") {
		key := text(r.at("RouteKey"))
		own := object(settings[key])
		delete(settings, key)
		if tight := strings.HasPrefix(key, "POST ") || strings.Contains(key, "/callback/"); tight &&
			(own == nil || limit(own) >= usual) {
			broken = append(broken, key+" is throttled as any other route")
		}
		if own != nil && !strings.Contains(dependsOn, name) {
			broken = append(broken, "the stage may be made before "+name+", which it throttles")
		}
	}
	for key := range settings {
		broken = append(broken, "there is no route "+key)
	}
	return broken
}
