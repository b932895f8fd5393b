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
//
// A role or a user is meant by its account and its name, which no other has there
// whatever the paths, so the path that an ARN is given with or without does not matter.
// See https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-friendly-names
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

// principal is a role or a user without its path, which sessions of a role do not
// show: those of IAM Identity Center's roles, which all have one, would not be known again.
type principal struct{ partition, account, kind, name string }

// given is what a person may name a principal by. There is no wildcard in it.
var given = regexp.MustCompile(`^arn:(aws[a-z-]*):iam::([0-9]{12}):(role|user)/(?:[^\s*?$]+/)?([A-Za-z0-9_+=,.@-]+)$`)

func parsePrincipal(arn string) (principal, error) {
	m := given.FindStringSubmatch(arn)
	if m == nil {
		return principal{}, fmt.Errorf("%q is not the ARN of one IAM role or user, "+
			"such as arn:aws:iam::111122223333:role/NAME", arn)
	}
	return principal{m[1], m[2], m[3], m[4]}, nil
}

// arn of what is called so in the principal's account.
func (p principal) arn(resource string) string {
	return "arn:" + p.partition + ":iam::" + p.account + ":" + resource
}

func (p principal) root() string { return p.arn("root") }

// patterns match what aws:PrincipalArn can be, whatever the session: the name
// without a path and with any. The wildcard can be part of no name, for there is a
// slash before the name, and none within names.
func (p principal) patterns() []string {
	return []string{p.arn(p.kind + "/" + p.name), p.arn(p.kind + "/*/" + p.name)}
}

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
// and, for the condition keys,
// https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssecretsmanager.html
func (g Guard) Policy() (string, error) {
	account, err := g.account()
	if err != nil {
		return "", err
	}
	keepers := append(patterns(g.Recovery...), account)
	deny := func(sid string, except []string, actions []string, more map[string]map[string]any) statement {
		condition := map[string]map[string]any{"ArnNotLike": {"aws:PrincipalArn": except}}
		for operator, keys := range more {
			condition[operator] = keys
		}
		return statement{Sid: sidPrefix + sid, Effect: "Deny", Principal: map[string]string{"AWS": account}, Action: actions,
			Resource: "*", Condition: condition}
	}
	writers, read := append(patterns(g.Writer), keepers...), []string{"secretsmanager:GetSecretValue"}
	policy := policy{Version: "2012-10-17", Statement: []statement{
		deny("AloneWrites", writers, []string{"secretsmanager:PutSecretValue", "secretsmanager:UpdateSecretVersionStage"},
			nil),
		deny("IsNotEndedNorOpened", keepers, []string{"secretsmanager:CancelRotateSecret",
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

// patterns of ARNs that account has checked.
func patterns(arns ...string) (all []string) {
	for _, arn := range arns {
		p, _ := parsePrincipal(arn)
		all = append(all, p.patterns()...)
	}
	return all
}

// account checks the principals and returns the ARN of their one account, which
// is that of its root user as well.
func (g Guard) account() (string, error) {
	if len(g.Recovery) == 0 {
		return "", errors.New("a guard needs a principal for recovery, or nobody could ever take it off again")
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
			return "", fmt.Errorf("%s belongs to another account than %s", arn, g.Writer)
		}
	}
	if g.keeps(writer) {
		return "", fmt.Errorf("%s writes the secrets and cannot be for recovery as well: it must not be able to end them",
			g.Writer)
	}
	return writer.root(), nil
}

func (g Guard) keeps(who principal) bool {
	return slices.ContainsFunc(g.Recovery, func(arn string) bool {
		kept, err := parsePrincipal(arn)
		return err == nil && kept == who
	})
}

// session is the end of what AWS STS calls the session of a role, without the role's path.
var session = regexp.MustCompile(`:assumed-(role/[^/]+)/.*$`)

// Keeps reports whether the policy leaves every right to the caller, by the ARN that
// AWS STS gives for it: one of the principals for recovery, or the root user.
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
	Resource  string // of a secret's own policy: the secret
	Condition map[string]map[string]any
}

// isOurs reports whether every statement of an attached policy was made here.
func isOurs(attached string) bool {
	var p struct{ Statement []struct{ Sid string } }
	return json.Unmarshal([]byte(attached), &p) == nil && len(p.Statement) > 0 &&
		!slices.ContainsFunc(p.Statement, func(s struct{ Sid string }) bool { return !strings.HasPrefix(s.Sid, sidPrefix) })
}
