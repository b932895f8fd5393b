package infra_test

import (
	"fmt"
	"slices"
	"strings"
)

// callbackVaultKey: the key of the stores is the same for the table, the topic, app credentials and
// connections' secrets, so the callback function may use it for all but the last, and make data keys for the topic only.
func callbackVaultKey(t template) (broken []string) {
	for _, s := range t.policy("CallbackPolicy") {
		if !strings.Contains(s.resourceText(), "VaultKey") {
			continue
		}
		condition := object(s.body["Condition"])
		via := fmt.Sprint(object(condition["StringEquals"])["kms:ViaService"])
		secret := fmt.Sprint(object(condition["StringLike"])["kms:EncryptionContext:SecretARN"])
		table := via == "map[Fn::Sub:dynamodb.${AWS::Region}.${AWS::URLSuffix}]"
		apps := via == "map[Fn::Sub:secretsmanager.${AWS::Region}.${AWS::URLSuffix}]" && strings.HasSuffix(secret, ":secret:${SecretPrefix}/app/*]")
		topic := via == "map[Fn::Sub:sns.${AWS::Region}.${AWS::URLSuffix}]" &&
			fmt.Sprint(object(condition["StringEquals"])["kms:EncryptionContext:aws:sns:topicArn"]) == "map[Ref:Notices]"
		if !topic && !slices.Equal(s.actions, []string{"kms:Decrypt"}) || !table && !apps && !topic {
			broken = append(broken, fmt.Sprint(s.where, " allows ", s.actions, " via ", via, " for ", secret))
		}
	}
	return broken
}

// callbackHasOnePolicy: what the other rules say of its policy is all that there is.
func callbackHasOnePolicy(t template) (broken []string) {
	if f := t.resource("CallbackFunction"); f.at("Policies") != nil || f.at("Role") == nil {
		broken = append(broken, "CallbackFunction has rights that SAM makes up")
	}
	role := t.resource("CallbackRole")
	for _, list := range []string{"Policies", "ManagedPolicyArns"} {
		if role.at(list) != nil {
			broken = append(broken, "CallbackRole has "+list)
		}
	}
	for _, kind := range []string{"AWS::IAM::RolePolicy", "AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"} {
		for name, r := range t.ofType(kind) {
			if name != "CallbackPolicy" && strings.Contains(fmt.Sprint(r.at("RoleName"), r.at("Roles")), "CallbackRole") {
				broken = append(broken, name+" is a second policy of CallbackRole")
			}
		}
	}
	return broken
}
