package secretsmanager_test

import (
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/tokenturn/tokenturn/pkg/internal/awstest"
	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/secretsmanager"
)

const (
	writer   = "arn:aws:iam::111122223333:role/tokenturn-RotateRole-1"
	operator = "arn:aws:iam::111122223333:role/aws-reserved/sso.amazonaws.com/eu-west-1/Operators"
	spare    = "arn:aws:iam::111122223333:user/break-glass"
	root     = "arn:aws:iam::111122223333:root"
	reader   = "arn:aws:iam::111122223333:role/reader"
	admin    = "arn:aws:iam::111122223333:role/admin"
	cache    = "arn:aws:iam::111122223333:role/reader-with-a-caching-library"
)

var guard = secretsmanager.Guard{Writer: writer, Recovery: []string{operator, spare}, ByVersion: []string{cache}}

// parsed is the policy as IAM reads it.
type parsed struct {
	Version   string
	Statement []struct {
		Sid, Effect, Resource string
		Principal             map[string]string
		Action                []string
		Condition             map[string]map[string]any
	}
}

func guardPolicy(t *testing.T) parsed {
	t.Helper()
	return policyOf(t, guard)
}

func policyOf(t *testing.T, g secretsmanager.Guard) (p parsed) {
	t.Helper()
	text, err := g.Policy()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// denies evaluates the policy as IAM does: all conditions of a statement hold
// for it to apply. request has the condition keys that the call brings.
func (p parsed) denies(t *testing.T, who, action string, request map[string]string) bool {
	t.Helper()
	request["aws:PrincipalArn"] = who
	for _, s := range p.Statement {
		applies := slices.Contains(s.Action, action)
		for operator, keys := range s.Condition {
			for key, want := range keys {
				value, there := request[key]
				switch operator {
				case "ArnNotLike":
					applies = applies && !slices.ContainsFunc(want.([]any), func(pattern any) bool {
						return arnLike(pattern.(string),
							value)
					})
				case "StringNotEquals":
					applies = applies && value != want
				case "Null":
					applies = applies && (want == "true") != there
				default:
					t.Fatalf("IAM's operator %s is not evaluated here", operator)
				}
			}
		}
		if applies {
			return true
		}
	}
	return false
}

// arnLike matches as IAM does: part by part, of which the last may contain colons;
// a * is any number of characters, slashes among them.
func arnLike(pattern, arn string) bool {
	patterns, parts := strings.SplitN(pattern, ":", 6), strings.SplitN(arn, ":", 6)
	return slices.EqualFunc(patterns, parts, func(pattern, part string) bool {
		expression := strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `.*`)
		return regexp.MustCompile("^" + expression + "$").MatchString(part)
	})
}

func TestGuardDeniesEverybodyElse(t *testing.T) {
	p := guardPolicy(t)
	everybody := []string{writer, operator, spare, root, reader, admin, cache}
	recovery := []string{operator, spare, root}
	for _, c := range []struct {
		what, action string
		request      map[string]string
		may          []string
	}{
		{"writing a version", "PutSecretValue", nil, []string{writer, operator, spare, root}},
		{"moving a label", "UpdateSecretVersionStage", nil, []string{writer, operator, spare, root}},
		{"reading what is current", "GetSecretValue", map[string]string{"secretsmanager:VersionStage": "AWSCURRENT"},
			everybody},
		{"reading without a label", "GetSecretValue", nil, everybody},
		{"reading what was current", "GetSecretValue", map[string]string{"secretsmanager:VersionStage": "AWSPREVIOUS"},
			[]string{writer, operator, spare, root}},
		{"reading what is pending", "GetSecretValue", map[string]string{"secretsmanager:VersionStage": "AWSPENDING"},
			[]string{writer, operator, spare, root}},
		{"reading a version by id", "GetSecretValue", map[string]string{"secretsmanager:VersionId": "escrow-1"},
			[]string{writer, operator, spare, root, cache}},
		{"reading by id and label", "GetSecretValue", map[string]string{"secretsmanager:VersionId": "1",
			"secretsmanager:VersionStage": "AWSCURRENT"}, []string{writer, operator, spare, root, cache}},
		{"describing", "DescribeSecret", nil, everybody},
		{"deleting", "DeleteSecret", nil, recovery},
		{"restoring", "RestoreSecret", nil, recovery},
		{"changing value or key", "UpdateSecret", nil, recovery},
		{"rotating by Secrets Manager", "RotateSecret", nil, recovery},
		{"copying elsewhere", "ReplicateSecretToRegions", nil, recovery},
		{"changing the policy", "PutResourcePolicy", nil, recovery},
		{"taking the policy off", "DeleteResourcePolicy", nil, recovery},
		{"changing tags that policies may go by", "TagResource", nil, recovery},
	} {
		for _, who := range everybody {
			request := map[string]string{}
			for key, value := range c.request {
				request[key] = value
			}
			if denied := p.denies(t, who, "secretsmanager:"+c.action, request); denied == slices.Contains(c.may, who) {
				t.Errorf("%s by %s: denied is %t", c.what, who, denied)
			}
		}
	}
}

// Names are unique in an account: a principal is the same with and without its path, and a
// similar name is another principal.
func TestGuardKnowsPrincipalsWithAnyPath(t *testing.T) {
	const account = "arn:aws:iam::111122223333:"
	everything := []string{"PutSecretValue", "GetSecretValue", "DeleteSecret"}
	for _, path := range []string{"", "aws-reserved/sso.amazonaws.com/", "a/b/c/"} {
		g := secretsmanager.Guard{Writer: account + "role/" + path + "Rotate", ByVersion: []string{account + "role/" + path +
			"Cache"},
			Recovery: []string{account + "role/" + path + "AWSReservedSSO_Operators_0123456789abcdef", account + "user/" + path +
				"break-glass"}}
		p := policyOf(t, g)
		for who, may := range map[string][]string{
			"role/Rotate":                {"PutSecretValue", "GetSecretValue"},
			"role/service-role/Rotate":   {"PutSecretValue", "GetSecretValue"},
			"role/Cache":                 {"GetSecretValue"},
			"role/service-role/Cache":    {"GetSecretValue"},
			"user/break-glass":           everything,
			"user/emergency/break-glass": everything,
			"role/break-glass":           {},
			"role/emergency/break-glass": {},
			"user/Rotate":                {},
			"role/evil-Rotate":           {},
			"role/x/evilRotate":          {},
			"role/Rotate-evil":           {},
			"role/x/Rotate/evil":         {},
			"role/AWSReservedSSO_Operators_0123456789abcdef":                                          everything,
			"role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_Operators_0123456789abcdef":           everything,
			"role/aws-reserved/sso.amazonaws.com/eu-west-1/AWSReservedSSO_Operators_0123456789abcdef": everything,
			"role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_Operators_0123456789abcdee":           {},
		} {
			for _, action := range everything {
				request := map[string]string{"secretsmanager:VersionId": "1"}
				if p.denies(t, account+who, "secretsmanager:"+action, request) == slices.Contains(may, action) {
					t.Errorf("given %q: %s by %s: denied is %t", path, action, who, slices.Contains(may, action))
				}
				if elsewhere := "arn:aws:iam::444455556666:" + who; !p.denies(t, elsewhere, "secretsmanager:"+action, request) {
					t.Errorf("given %q: %s by %s is not denied", path, action, elsewhere)
				}
			}
			// STS shows no path of a role. Keeps is true for no principal that the policy denies.
			shown := account + who
			if kind, name, _ := strings.Cut(who, "/"); kind == "role" {
				shown = "arn:aws:sts::111122223333:assumed-role/" + name[strings.LastIndex(name, "/")+1:] + "/pat@example.com"
			}
			if g.Keeps(shown) != slices.Contains(may, "DeleteSecret") {
				t.Errorf("given %q: keeps %s is %t", path, shown, g.Keeps(shown))
			}
		}
	}
}

func TestGuardsOnlyWildcardStandsForAPath(t *testing.T) {
	except := []any{"arn:aws:iam::111122223333:role/Operators", "arn:aws:iam::111122223333:role/*/Operators", spare,
		"arn:aws:iam::111122223333:user/*/break-glass", root}
	more := map[string][]any{
		"TokenturnAloneWrites":           {writer, "arn:aws:iam::111122223333:role/*/tokenturn-RotateRole-1"},
		"TokenturnAloneReadsOtherStages": {writer, "arn:aws:iam::111122223333:role/*/tokenturn-RotateRole-1"},
		"TokenturnAloneReadsByVersion": {writer, "arn:aws:iam::111122223333:role/*/tokenturn-RotateRole-1",
			cache, "arn:aws:iam::111122223333:role/*/reader-with-a-caching-library"},
	}
	for _, s := range guardPolicy(t).Statement {
		if s.Effect != "Deny" || s.Principal["AWS"] != root || len(s.Principal) != 1 ||
			strings.Contains(strings.Join(s.Action, " "), "*") {
			t.Errorf("%+v", s)
		}
		got, _ := s.Condition["ArnNotLike"]["aws:PrincipalArn"].([]any)
		want := append(slices.Clone(except), more[s.Sid]...)
		if len(got) != len(want) || slices.ContainsFunc(want, func(one any) bool { return !slices.Contains(got, one) }) {
			t.Errorf("%s keeps %v, want %v", s.Sid, got, want)
		}
	}
}

func TestGuardRefusesWhatCouldLockOut(t *testing.T) {
	for name, g := range map[string]secretsmanager.Guard{
		"nobody for recovery":   {Writer: writer},
		"no writer":             {Recovery: []string{operator}},
		"a wildcard":            {Writer: writer, Recovery: []string{"arn:aws:iam::111122223333:role/*"}},
		"a wildcard in a path":  {Writer: writer, Recovery: []string{"arn:aws:iam::111122223333:role/*/Operators"}},
		"one in a name":         {Writer: writer, Recovery: []string{"arn:aws:iam::111122223333:role/Operator?"}},
		"a path without a name": {Writer: writer, Recovery: []string{"arn:aws:iam::111122223333:role/aws-reserved/"}},
		"the writer by another path": {Writer: writer, Recovery: []string{operator, strings.Replace(writer, "role/",
			"role/x/", 1)}},
		"everybody": {Writer: writer, Recovery: []string{"*"}},
		"a session": {Writer: writer,
			Recovery: []string{"arn:aws:sts::111122223333:assumed-role/Operators/pat"}},
		"a reader elsewhere": {Writer: writer, Recovery: []string{operator},
			ByVersion: []string{"arn:aws:iam::444455556666:role/reader"}},
		"another account":           {Writer: writer, Recovery: []string{"arn:aws:iam::444455556666:role/Operators"}},
		"the writer for recovery":   {Writer: writer, Recovery: []string{operator, writer}},
		"an account instead":        {Writer: root, Recovery: []string{operator}},
		"something after the name":  {Writer: writer + "\n", Recovery: []string{operator}},
		"a variable of the service": {Writer: writer, Recovery: []string{"arn:aws:iam::111122223333:role/${aws:username}"}},
	} {
		if text, err := g.Policy(); err == nil {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func TestGuardKnowsWhoMayWrite(t *testing.T) {
	for caller, kept := range map[string]bool{
		"arn:aws:sts::111122223333:assumed-role/Operators/pat@example.com": true,
		spare: true, root: true,
		"arn:aws:sts::111122223333:user/break-glass":                      true,
		"arn:aws:iam::111122223333:user/emergency/break-glass":            true,
		"arn:aws-cn:sts::111122223333:assumed-role/Operators/pat":         false,
		"arn:aws:sts::111122223333:assumed-role/Operators":                false,
		"arn:aws:sts::111122223333:assumed-role/tokenturn-RotateRole-1/x": false,
		"arn:aws:sts::444455556666:assumed-role/Operators/pat":            false,
		"arn:aws:iam::444455556666:root":                                  false,
		"arn:aws:iam::111122223333:user/Operators":                        false,
		"arn:aws:sts::111122223333:assumed-role/break-glass/x":            false,
		"": false, "nonsense": false,
	} {
		if guard.Keeps(caller) != kept {
			t.Errorf("%q: want %t", caller, kept)
		}
	}
}

func protections(p play) (*secretsmanager.Protections, *awstest.Script) {
	script := awstest.Play(p)
	return secretsmanager.NewProtections(sdk.NewFromConfig(script.Config()), naming), script
}

func TestAttachReplacesOurOwnPolicyOnly(t *testing.T) {
	ours, err := guard.Policy()
	if err != nil {
		t.Fatal(err)
	}
	// A policy that was attached before paths were ignored is also tokenturn's.
	before := strings.NewReplacer("ArnNotLike", "ArnNotEquals", "role/*/Operators",
		"role/aws-reserved/sso.amazonaws.com/eu-west-1/Operators").Replace(ours)
	for _, c := range []struct {
		attached string
		other    bool
	}{
		{"", false}, {ours, false}, {before, false},
		{`{"Version":"2012-10-17","Statement":[{"Sid":"Partner","Effect":"Allow","Principal":{"AWS":"444455556666"},"Action":"secretsmanager:GetSecretValue","Resource":"*"}]}`, true},
		{`{"Statement":[]}`, true}, {`nonsense`, true},
	} {
		p, script := protections(by(map[string]play{"GetResourcePolicy": give(map[string]any{"ResourcePolicy": c.attached}),
			"PutResourcePolicy": give(nil)}))
		err := p.Attach(t.Context(), acme, guard)
		if errors.Is(err, secretsmanager.ErrOtherPolicy) != c.other || !c.other && err != nil {
			t.Errorf("over %.40q: %v", c.attached, err)
		}
		calls := script.Calls()
		if put := calls[len(calls)-1]; !c.other && (put.Operation != "PutResourcePolicy" || put.Input["SecretId"] != name ||
			put.Input["ResourcePolicy"] != ours || put.Input["BlockPublicPolicy"] != true) {
			t.Errorf("over %.40q: %v", c.attached, put)
		} else if c.other && len(calls) != 1 {
			t.Errorf("over %.40q: calls %v", c.attached, script.Operations())
		}
	}
}

func TestAttachRefusals(t *testing.T) {
	for code, want := range map[string]error{"ResourceNotFoundException": rotation.ErrNoSecret,
		"InvalidRequestException": rotation.ErrSecretDeleted, "AccessDeniedException": nil} {
		p, _ := protections(refuse(code))
		if err := p.Attach(t.Context(), acme, guard); err == nil || want != nil && !errors.Is(err, want) ||
			!strings.Contains(err.Error(), acme.String()) {
			t.Errorf("%s: %v", code, err)
		}
	}
	p, script := protections(give(nil))
	if err := p.Attach(t.Context(), acme, secretsmanager.Guard{}); err == nil || len(script.Calls()) > 0 {
		t.Errorf("an empty guard: %v after %v", err, script.Operations())
	}
}
