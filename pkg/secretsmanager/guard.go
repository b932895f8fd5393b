package secretsmanager

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Guard says who keeps certain permissions on a connection's secret. Its policy denies
// them to all other principals, whatever other policies allow.
//
// Account and name identify a role or a user: names are unique in an account, whatever the
// path. So it does not matter whether an ARN is given with or without its path.
// See https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-friendly-names
type Guard struct {
	Writer string // ARN of the role of the rotate function, which writes the secret
	// Recovery has the ARNs of roles and users that keep every permission: the operators,
	// and a principal that can repair this policy if the others are lost. The root user of
	// the account keeps them too; otherwise a misspelled ARN could lock out everybody.
	Recovery []string
	// ByVersion has the ARNs of readers that ask for a version by its id, as the caching
	// libraries of AWS do. A policy cannot distinguish the current version from older ones
	// by id, so these readers may read those too: expired access tokens and sealed answers.
	ByVersion []string
}

// principal is a role or a user without its path. Sessions of a role do not show the path,
// so with it, sessions of IAM Identity Center's roles, which all have one, would not match.
type principal struct{ partition, account, kind, name string }

// given matches the ARNs that an operator may give. They contain no wildcard.
var given = regexp.MustCompile(`^arn:(aws[a-z-]*):iam::([0-9]{12}):(role|user)/(?:[^\s*?$]+/)?([A-Za-z0-9_+=,.@-]+)$`)

func parsePrincipal(arn string) (principal, error) {
	m := given.FindStringSubmatch(arn)
	if m == nil {
		return principal{}, fmt.Errorf("%q is not the ARN of one IAM role or user, "+
			"such as arn:aws:iam::111122223333:role/NAME", arn)
	}
	return principal{m[1], m[2], m[3], m[4]}, nil
}

// arn returns the ARN of a resource in the principal's account.
func (p principal) arn(resource string) string {
	return "arn:" + p.partition + ":iam::" + p.account + ":" + resource
}

func (p principal) root() string { return p.arn("root") }

// patterns returns patterns for all values of aws:PrincipalArn, whatever the session: the
// name without a path and with any path. The wildcard cannot match a part of a name,
// because a slash precedes the name, and names contain none.
func (p principal) patterns() []string {
	return []string{p.arn(p.kind + "/" + p.name), p.arn(p.kind + "/*/" + p.name)}
}

// sidPrefix starts the id of each statement of a guard, so that tokenturn recognizes its
// own policies.
const sidPrefix = "Tokenturn"

// Policy is the resource policy of every connection's secret. It only denies; the roles'
// own policies allow.
//
// A statement that denies to the account denies to all of its principals, and other
// accounts have no permission without a policy that allows it. So no statement has to name
// every principal. A read that names neither version nor stage gets AWSCURRENT.
//
// See https://docs.aws.amazon.com/secretsmanager/latest/userguide/auth-and-access_resource-policies.html
// and, for the condition keys,
// https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssecretsmanager.html
func (g Guard) Policy() (string, error) {
	account, err := g.account()
	if err != nil {
		return "", err
	}
	recovery := append(patterns(g.Recovery...), account)
	deny := func(sid string, except []string, actions []string, more map[string]map[string]any) statement {
		condition := map[string]map[string]any{"ArnNotLike": {"aws:PrincipalArn": except}}
		for operator, keys := range more {
			condition[operator] = keys
		}
		return statement{Sid: sidPrefix + sid, Effect: "Deny", Principal: map[string]string{"AWS": account}, Action: actions,
			Resource: "*", Condition: condition}
	}
	writers, read := append(patterns(g.Writer), recovery...), []string{"secretsmanager:GetSecretValue"}
	policy := policy{Version: "2012-10-17", Statement: []statement{
		deny("AloneWrites", writers, []string{"secretsmanager:PutSecretValue", "secretsmanager:UpdateSecretVersionStage"},
			nil),
		deny("IsNotEndedNorOpened", recovery, []string{"secretsmanager:CancelRotateSecret",
			"secretsmanager:DeleteResourcePolicy", "secretsmanager:DeleteSecret",
			"secretsmanager:PutResourcePolicy", "secretsmanager:RemoveRegionsFromReplication",
			"secretsmanager:ReplicateSecretToRegions", "secretsmanager:RestoreSecret",
			"secretsmanager:RotateSecret", "secretsmanager:StopReplicationToReplica", "secretsmanager:TagResource",
			"secretsmanager:UntagResource", "secretsmanager:UpdateSecret"}, nil),
		deny("AloneReadsByVersion", append(slices.Clone(writers), patterns(g.ByVersion...)...), read,
			map[string]map[string]any{"Null": {"secretsmanager:VersionId": "false"}}),
		deny("AloneReadsOtherStages", writers, read,
			map[string]map[string]any{"Null": {"secretsmanager:VersionStage": "false"},
				"StringNotEquals": {"secretsmanager:VersionStage": current}}),
	}}
	text, err := json.MarshalIndent(policy, "", "  ")
	return string(text), err
}

// patterns returns the patterns of ARNs that account has checked.
func patterns(arns ...string) (all []string) {
	for _, arn := range arns {
		p, _ := parsePrincipal(arn)
		all = append(all, p.patterns()...)
	}
	return all
}

// account checks the principals and returns the ARN of their common account, which is also
// the ARN of its root user.
func (g Guard) account() (string, error) {
	if len(g.Recovery) == 0 {
		return "", errors.New("the policy needs a principal for recovery: without one, nobody could remove the policy again")
	}
	writer, err := parsePrincipal(g.Writer)
	if err != nil {
		return "", err
	}
	for _, arn := range slices.Concat(g.Recovery, g.ByVersion) {
		p, err := parsePrincipal(arn)
		if err != nil {
			return "", err
		}
		if p.root() != writer.root() {
			return "", fmt.Errorf("%s does not belong to the same account as %s", arn, g.Writer)
		}
	}
	if g.keeps(writer) {
		return "", fmt.Errorf("%s writes the secrets, so it cannot be a principal for recovery: "+
			"it must not be able to delete them", g.Writer)
	}
	return writer.root(), nil
}

func (g Guard) keeps(who principal) bool {
	return slices.ContainsFunc(g.Recovery, func(arn string) bool {
		kept, err := parsePrincipal(arn)
		return err == nil && kept == who
	})
}

// session matches the end of the ARN that AWS STS gives for the session of a role, without the role's path.
var session = regexp.MustCompile(`:assumed-(role/[^/]+)/.*$`)

// Keeps reports whether the caller, by the ARN that AWS STS gives for it, keeps every
// permission: one of the principals for recovery, or the root user.
func (g Guard) Keeps(caller string) bool {
	if account, err := g.account(); err != nil || caller == account {
		return err == nil
	}
	who, err := parsePrincipal(session.ReplaceAllString(strings.Replace(caller, ":sts:", ":iam:", 1), ":$1"))
	return err == nil && g.keeps(who)
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
	Resource  string // in a secret's own policy, "*" is the secret
	Condition map[string]map[string]any
}

// isOurs reports whether tokenturn made every statement of an attached policy.
func isOurs(attached string) bool {
	var p struct{ Statement []struct{ Sid string } }
	return json.Unmarshal([]byte(attached), &p) == nil && len(p.Statement) > 0 &&
		!slices.ContainsFunc(p.Statement, func(s struct{ Sid string }) bool { return !strings.HasPrefix(s.Sid, sidPrefix) })
}
