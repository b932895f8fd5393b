//go:build conformance

package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	secretstypes "github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
)

// disconnected is what `connection disconnect --json` answers.
type disconnected struct {
	Status      string `json:"status"`
	Revocations []struct {
		Result string `json:"result"`
	} `json:"revocations"`
	Unrevoked int       `json:"unrevoked"`
	Detail    string    `json:"detail"`
	Secret    string    `json:"secret"`
	DeletedAt time.Time `json:"deleted_at"`
}

// TestDisconnect takes a connection out of use with a fresh and with an expired
// pair, has the secret's shell back, and connects again.
func TestDisconnect(t *testing.T) {
	t.Parallel()
	const lifetime = 20 * time.Second
	for _, grace := range []int{0, 1} {
		t.Run(fmt.Sprintf("GRACE=%d", grace), func(t *testing.T) {
			t.Parallel()
			in := install(t, startCloud(t), startProvider(t, grace, lifetime), "disconnect", patient)
			in.connect("peer/acme")
			in.works("peer/acme")
			old := in.invite("peer/acme")

			d := in.disconnect("peer/acme")
			if d.Detail != "" || len(d.Revocations) != 1 || d.Revocations[0].Result != "revoked" {
				t.Errorf("with a fresh pair: %+v", d)
			}
			if left := time.Until(d.DeletedAt); left < 6*24*time.Hour || left > 8*24*time.Hour {
				t.Errorf("the secret goes in %v, want seven days", left)
			}
			in.allRevoked()
			if p := in.browser().open(http.MethodGet, old); p.status != http.StatusGone {
				t.Errorf("a link of before answers %d", p.status)
			}
			if !in.deleted("peer/acme") {
				t.Error("readers still get the secret")
			}
			before := len(in.tap.presentations())
			in.force("peer/acme")
			in.sweep()
			if after := len(in.tap.presentations()); after != before {
				t.Error("something of the connection was presented")
			}

			in.operate("connection", "undo", "peer/acme")
			if status := in.use(in.read("peer/acme")); status != http.StatusUnauthorized {
				t.Errorf("the token that came back with the secret is answered with %d", status)
			}
			in.disconnect("peer/acme")

			in.connect("peer/acme") // which restores the secret
			first := in.works("peer/acme")
			time.Sleep(time.Until(first.ExpiresAt)) // Doorkeeper's clock cannot be wound
			d = in.disconnect("peer/acme")
			if d.Detail != "" || len(d.Revocations) == 0 {
				t.Errorf("with an expired pair: %+v", d)
			}
			in.allRevoked()

			for _, c := range in.calls("secretsmanager") {
				if (c.Op == "DeleteSecret" || c.Op == "RestoreSecret") && c.Who != keyOfOperator {
					t.Errorf("%s was called by %s", c.Op, c.Who)
				}
			}
			t.Logf("GRACE=%d: disconnected fresh and expired, undone once, connected again once, %d pairs all revoked; %s",
				grace, len(in.provider.issued().Tokens), in.keepsSecrets())
		})
	}
}

func (in *installation) disconnect(connection string) (d disconnected) {
	in.t.Helper()
	in.must(json.Unmarshal(in.operate("connection", "disconnect", connection, "--yes"), &d))
	if d.Status != "disconnected" || d.Secret != "scheduled" || d.Unrevoked != 0 {
		in.t.Errorf("disconnecting %s answers %+v", connection, d)
	}
	return d
}

// allRevoked checks that nothing that Doorkeeper ever issued is good.
func (in *installation) allRevoked() {
	in.t.Helper()
	for n, token := range in.provider.issued().Tokens {
		if !token.Revoked {
			in.t.Errorf("pair %d is not revoked", n)
		}
	}
}

func (in *installation) deleted(connection string) bool {
	in.t.Helper()
	name := in.secretName(connection)
	_, err := in.secrets.GetSecretValue(in.t.Context(), &secretsmanager.GetSecretValueInput{SecretId: &name})
	_, gone := errors.AsType[*secretstypes.InvalidRequestException](err)
	return gone
}

// calls are those of moto's log that one service got.
func (in *installation) calls(service string) (some []cloudCall) {
	in.t.Helper()
	all, _ := in.cloud.log(0)
	for _, c := range all {
		if c.Service == service {
			some = append(some, c)
		}
	}
	if len(some) == 0 {
		in.t.Errorf("no calls of %s in the log", service)
	}
	return some
}
