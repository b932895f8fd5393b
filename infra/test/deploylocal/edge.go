package main

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/apigatewayv2"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
)

func makeAPI(ctx context.Context, s *stack, _ string, properties map[string]any) (made, error) {
	in, err := decode[apigatewayv2.CreateApiInput](properties)
	if err != nil {
		return made{}, err
	}
	out, err := s.cloud.gateway.CreateApi(ctx, in)
	if err != nil {
		return made{}, err
	}
	return made{ref: *out.ApiId, attributes: map[string]string{"ApiEndpoint": *out.ApiEndpoint}, kept: out}, nil
}

func makeStage(ctx context.Context, s *stack, _ string, properties map[string]any) (made, error) {
	in, err := decode[apigatewayv2.CreateStageInput](properties)
	if err != nil {
		return made{}, err
	}
	out, err := s.cloud.gateway.CreateStage(ctx, in)
	if err != nil {
		return made{}, err
	}
	return made{ref: *out.StageName, kept: withAPI{out, in.ApiId}}, nil
}

// withAPI is an answer, and the API that it is of, which answers do not repeat.
type withAPI struct {
	Answer any
	ApiId  *string
}

func (w withAPI) MarshalJSON() ([]byte, error) {
	text := jsonOf(w.Answer)
	return []byte(text[:len(text)-1] + `,"ApiId":` + jsonOf(w.ApiId) + "}"), nil
}

func makeIntegration(ctx context.Context, s *stack, _ string, properties map[string]any) (made, error) {
	in, err := decode[apigatewayv2.CreateIntegrationInput](properties)
	if err != nil {
		return made{}, err
	}
	out, err := s.cloud.gateway.CreateIntegration(ctx, in)
	if err != nil {
		return made{}, err
	}
	return made{ref: *out.IntegrationId, kept: withAPI{out, in.ApiId}}, nil
}

func makeRoute(ctx context.Context, s *stack, _ string, properties map[string]any) (made, error) {
	in, err := decode[apigatewayv2.CreateRouteInput](properties)
	if err != nil {
		return made{}, err
	}
	out, err := s.cloud.gateway.CreateRoute(ctx, in)
	if err != nil {
		return made{}, err
	}
	return made{ref: *out.RouteId, kept: withAPI{out, in.ApiId}}, nil
}

// makeAlarm needs a client of CloudWatch before 1.50, the last to speak the
// protocol that moto does; go.mod holds it there.
func makeAlarm(ctx context.Context, s *stack, _ string, properties map[string]any) (made, error) {
	in, err := decode[cloudwatch.PutMetricAlarmInput](properties)
	if err != nil {
		return made{}, err
	}
	if _, err := s.cloud.cloudwatch.PutMetricAlarm(ctx, in); err != nil {
		return made{}, err
	}
	there, err := s.cloud.cloudwatch.DescribeAlarms(ctx,
		&cloudwatch.DescribeAlarmsInput{AlarmNames: []string{*in.AlarmName}})
	if err != nil {
		return made{}, err
	}
	return made{ref: *in.AlarmName, kept: there.MetricAlarms[0]}, nil
}

func makeDashboard(ctx context.Context, s *stack, name string, properties map[string]any) (made, error) {
	in, err := decode[cloudwatch.PutDashboardInput](properties)
	if err != nil {
		return made{}, err
	}
	if in.DashboardName == nil {
		in.DashboardName = new(s.name + "-" + name)
	}
	if _, err := s.cloud.cloudwatch.PutDashboard(ctx, in); err != nil {
		return made{}, err
	}
	there, err := s.cloud.cloudwatch.GetDashboard(ctx, &cloudwatch.GetDashboardInput{DashboardName: in.DashboardName})
	return made{ref: *in.DashboardName, kept: there}, err
}
