//go:build conformance

package conformance

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
)

// TestAnswerThatOnlyTheSecretStoreTook: the table cannot be reached from the moment the provider
// answers, and the process is gone before it can be. What the secret store took in its stead is found
// and becomes the current pair, although the provider forgives nothing.
func TestAnswerThatOnlyTheSecretStoreTook(t *testing.T) {
	t.Parallel()
	in := install(t, startCloud(t), startProvider(t, 0, 10*time.Minute), "escrow", quick)
	in.connect("peer/acme")
	before := in.read("peer/acme")

	answered := false
	unblock := in.tap.block(func(c call) bool {
		answered = answered || c.Name == "POST /oauth/token"
		return answered && c.Service == "dynamodb"
	})
	outcome := in.try(`{"op":"rotate","connection":"peer/acme"}`).outcome("peer/acme")
	in.rotate.Kill()
	unblock()
	if outcome == "rotated" || !in.holdsEscrow("peer/acme") {
		t.Fatalf("without the table a rotation answers %q, and an answer lies in the secret store: %v", outcome,
			in.holdsEscrow("peer/acme"))
	}

	time.Sleep(leaseAndQuiet) // no clock of the peers or the function can be wound
	in.sweep()
	in.deliver()
	if after := in.works("peer/acme"); after.Generation != before.Generation+1 {
		t.Errorf("the sweep brought the connection from generation %d to %d", before.Generation, after.Generation)
	}
	in.presentedOnce(2, 1) // nothing was asked for again
	t.Logf("table unreachable from the provider's answer on: %q, then found in the secret store; %s", outcome,
		in.keepsSecrets())
}

// holdsEscrow reports whether the secret store keeps an answer that the ledger has not taken.
func (in *installation) holdsEscrow(connection string) bool {
	in.t.Helper()
	name := in.secretName(connection)
	out, err := in.secrets.ListSecretVersionIds(in.t.Context(), &secretsmanager.ListSecretVersionIdsInput{SecretId: &name})
	in.must(err)
	for _, v := range out.Versions {
		if strings.HasPrefix(*v.VersionId, "escrow-") {
			return true
		}
	}
	return false
}
