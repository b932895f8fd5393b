package secretsmanager

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Guard says who keeps certain rights to a connection's secret. Its policy takes
// them away from everybody else, whatever other policies allow.
type Guard struct {
	Writer string // ARN of the role of the rotate function, which writes the secret
	// Recovery are the ARNs of roles and users that keep every right: the
	// operators, and whoever is to repair this policy should the others be lost. The root
	// user of the account keeps them too, or a misspelt ARN could lock everybody out.
	Recovery []string
	// ByVersion are the ARNs of readers that ask for a version by its id, as the caching
	// libraries of AWS do. No policy can tell the current version from older ones
	// by its id, so they may read those too: access tokens that are over, and sealed answers.
	ByVersion []string
}

// principal is a role or a user: what aws:PrincipalArn can be, whatever the
// session. There is no wildcard in it.
var principal = regexp.MustCompile(`^arn:(aws[a-z-]*):iam::([0-9]{12}):(role|user)/[A-Za-z0-9_+=,.@/-]+$`)

// sidPrefix begins the id of each of our statements, so that a policy made here
// can be told from one that somebody else attached.
const sidPrefix = "Tokenturn"

// Policy is the resource policy of every connection's secret. It only denies: who may do
// what is for the roles' own policies to say.
//
// A statement that denies to the account denies to all of its principals, and
// other accounts have no right without a policy that allows. So none has to name
// everybody. A read that names neither version nor stage gets AWSCURRENT.
//
// See https://docs.aws.amazon.com/secretsmanager/latest/userguide/auth-and-access_resource-policies.html
// and, for the condition keys, https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssecretsmanager.html
func (g Guard) Policy() (string, error) {
	account, err := g.account()
	if err != nil {
		return "", err
	}
	keepers := append(slices.Clone(g.Recovery), account)
	deny := func(sid string, except []string, actions []string, more map[string]map[string]any) statement {
		condition := map[string]map[string]any{"ArnNotEquals": {"aws:PrincipalArn": except}}
		for operator, keys := range more {
			condition[operator] = keys
		}
		return statement{Sid: sidPrefix + sid, Effect: "Deny", Principal: map[string]string{"AWS": account}, Action: actions, Resource: "*", Condition: condition}
	}
	writers, read := append([]string{g.Writer}, keepers...), []string{"secretsmanager:GetSecretValue"}
	policy := policy{Version: "2012-10-17", Statement: []statement{
		deny("AloneWrites", writers, []string{"secretsmanager:PutSecretValue", "secretsmanager:UpdateSecretVersionStage"}, nil),
		deny("IsNotEndedNorOpened", keepers, []string{"secretsmanager:CancelRotateSecret", "secretsmanager:DeleteResourcePolicy", "secretsmanager:DeleteSecret",
			"secretsmanager:PutResourcePolicy", "secretsmanager:RemoveRegionsFromReplication", "secretsmanager:ReplicateSecretToRegions", "secretsmanager:RestoreSecret",
			"secretsmanager:RotateSecret", "secretsmanager:StopReplicationToReplica", "secretsmanager:TagResource", "secretsmanager:UntagResource", "secretsmanager:UpdateSecret"}, nil),
		deny("AloneReadsByVersion", append(slices.Clone(writers), g.ByVersion...), read, map[string]map[string]any{"Null": {"secretsmanager:VersionId": "false"}}),
		deny("AloneReadsOtherStages", writers, read, map[string]map[string]any{"Null": {"secretsmanager:VersionStage": "false"},
			"StringNotEquals": {"secretsmanager:VersionStage": current}}),
	}}
	text, err := json.MarshalIndent(policy, "", "  ")
	return string(text), err
}

// account checks the principals and returns the ARN of their one account, which
// is that of its root user as well.
func (g Guard) account() (string, error) {
	if len(g.Recovery) == 0 {
		return "", errors.New("a guard needs a principal for recovery, or nobody could ever take it off again")
	}
	var account string
	for _, arn := range slices.Concat([]string{g.Writer}, g.Recovery, g.ByVersion) {
		parts := principal.FindStringSubmatch(arn)
		if parts == nil {
			return "", fmt.Errorf("%q is not the ARN of one IAM role or user, such as arn:aws:iam::111122223333:role/NAME", arn)
		}
		its := "arn:" + parts[1] + ":iam::" + parts[2] + ":root"
		if account != "" && its != account {
			return "", fmt.Errorf("%s belongs to another account than %s", arn, g.Writer)
		}
		account = its
	}
	if slices.Contains(g.Recovery, g.Writer) {
		return "", fmt.Errorf("%s writes the secrets and cannot be for recovery as well: it must not be able to end them", g.Writer)
	}
	return account, nil
}

// Keeps reports whether the caller, by the ARN that AWS STS gives for it, is one
// of the principals for recovery or the root user. A session of a role has
// another ARN than the role, and lacks its path.
func (g Guard) Keeps(caller string) bool {
	identity := func(arn string) (account, kind, name string) {
		parts := strings.SplitN(arn, ":", 6)
		if len(parts) < 6 {
			return "", "", ""
		}
		path := strings.Split(parts[5], "/")
		name = path[len(path)-1]
		if path[0] == "assumed-role" && len(path) > 1 {
			return parts[4], "role", path[1]
		}
		return parts[4], path[0], name
	}
	account, kind, name := identity(caller)
	return slices.ContainsFunc(g.Recovery, func(arn string) bool {
		itsAccount, itsKind, itsName := identity(arn)
		return account == itsAccount && (kind == "root" || kind == itsKind && name == itsName)
	})
}

type policy struct {
	Version   string
	Statement []statement
}

type statement struct {
	Sid       string
	Effect    string
	Principal map[string]string
	Action    []string
	Resource  string // of a secret's own policy: the secret
	Condition map[string]map[string]any
}

// isOurs reports whether every statement of an attached policy was made here.
func isOurs(attached string) bool {
	var p struct{ Statement []struct{ Sid string } }
	return json.Unmarshal([]byte(attached), &p) == nil && len(p.Statement) > 0 &&
		!slices.ContainsFunc(p.Statement, func(s struct{ Sid string }) bool { return !strings.HasPrefix(s.Sid, sidPrefix) })
}
