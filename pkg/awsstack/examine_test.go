package awsstack

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/doctor"
)

// Where IAM refuses, the finding names each action.
func TestRefusedPermissionsAreNamed(t *testing.T) {
	refuses := ""
	cloud := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		code := "ResourceNotFoundException"
		if refuses == "" || operation == refuses {
			code = "AccessDeniedException"
		}
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"__type":"` + code + `","message":"no"}`))
	}))
	defer cloud.Close()
	t.Setenv("AWS_ENDPOINT_URL", cloud.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIA")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	stack := open(t, "TOKENTURN_QUEUE_URL="+cloud.URL+"/111122223333/q", "TOKENTURN_TOPIC_ARN=arn:aws:sns:us-east-1:111122223333:t")

	all := stack.examinePermissions(t.Context())
	for _, action := range []string{"dynamodb:PutItem", "dynamodb:Scan", "secretsmanager:PutSecretValue", "secretsmanager:DeleteSecret"} {
		if len(all) != 1 || all[0].Level != doctor.Problem || !strings.Contains(all[0].Detail, action) {
			t.Errorf("%s is not named in %+v", action, all)
		}
	}
	for _, check := range []doctor.Check{stack.examineTable, stack.examineQueue} {
		if found := check(t.Context()); len(found) != 1 || found[0].Level != doctor.Warning || !strings.HasPrefix(found[0].Remedy, "allow ") {
			t.Errorf("what may not be looked at: %+v", found)
		}
	}
	refuses = "RestoreSecret"
	if found := stack.examinePermissions(t.Context()); len(found) != 1 || found[0].Detail != "not allowed here: secretsmanager:RestoreSecret" {
		t.Errorf("one refused action: %+v", found)
	}
}
