package permissions

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/tokenturn/tokenturn/infra/test/cloudformation"
)

// Grant is an action on one kind of resource: "CONN#" and its like of the
// table's items, "index/due", "app" and "connection" of the secrets, "SealKey"
// and "VaultKey". Kind is empty where the action is not bound to one, or the
// resource is the only one of its kind.
type Grant struct{ Action, Kind string }

func (g Grant) String() string { return strings.TrimSpace(g.Action + " " + g.Kind) }

// Covers reports whether g allows what the other is.
func (g Grant) Covers(other Grant) bool {
	return g.Action == other.Action && (g.Kind == "" || g.Kind == other.Kind)
}

// Granted lists what a policy of a parsed template allows, and what is within the
// role that it is of, whatever their conditions on parameters.
func Granted(template map[string]any, policy string) []Grant {
	its := properties(template, policy)
	documents := []any{its["PolicyDocument"]}
	role, _ := its["RoleName"].(map[string]any)
	roleName, _ := role["Ref"].(string)
	for _, item := range cloudformation.List(properties(template, roleName)["Policies"]) {
		inline, _ := item.(map[string]any)
		documents = append(documents, inline["PolicyDocument"])
	}
	var grants []Grant
	for _, document := range documents {
		grants = append(grants, allowed(document)...)
	}
	slices.SortFunc(grants, func(a, b Grant) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(grants)
}

func properties(template map[string]any, name string) map[string]any {
	resources, _ := template["Resources"].(map[string]any)
	resource, _ := resources[name].(map[string]any)
	its, _ := resource["Properties"].(map[string]any)
	return its
}

// allowed lists what the statements of one document allow.
func allowed(document any) (grants []Grant) {
	its, _ := document.(map[string]any)
	for _, item := range cloudformation.List(its["Statement"]) {
		statement, _ := item.(map[string]any)
		if branches := cloudformation.List(statement["Fn::If"]); branches != nil {
			statement, _ = branches[1].(map[string]any)
		}
		for _, action := range cloudformation.List(statement["Action"]) {
			for _, kind := range kinds(statement) {
				grants = append(grants, Grant{fmt.Sprint(action), kind})
			}
		}
	}
	return grants
}

var (
	leadingKeys = regexp.MustCompile(`"([A-Z]+#)\*"`) // which no other condition has
	secretNames = regexp.MustCompile(`:secret:\$\{SecretPrefix\}/(\w+)/`)
	theKeys     = regexp.MustCompile(`"(SealKey|VaultKey)"`)
	theIndex    = regexp.MustCompile(`/(index/\w+)"`)
)

// kinds finds what kinds of resources a statement is about.
func kinds(statement map[string]any) (all []string) {
	conditions, _ := json.Marshal(statement["Condition"])
	resources, _ := json.Marshal(statement["Resource"])
	for _, find := range []struct {
		what *regexp.Regexp
		in   []byte
	}{{leadingKeys, conditions}, {secretNames, resources}, {theKeys, resources}, {theIndex, resources}} {
		for _, m := range find.what.FindAllSubmatch(find.in, -1) {
			all = append(all, string(m[1]))
		}
	}
	if all == nil {
		return []string{""}
	}
	return all
}

// Needed says what a call to AWS needs, from its service, its name and its
// body, which is JSON.
func Needed(service, operation string, body []byte) []Grant {
	var in struct {
		IndexName     string
		Key, Item     map[string]any
		TransactItems []map[string]struct{ Key, Item map[string]any }

		ExpressionAttributeValues map[string]any
		SecretId, Name            string
		Tags                      []any
	}
	_ = json.Unmarshal(body, &in) // SNS speaks another protocol and has one kind of resource
	action := service + ":" + operation
	switch {
	case Actions(action) == nil:
		return nil
	case operation == "TransactWriteItems":
		var needed []Grant
		for _, part := range in.TransactItems {
			for kind, item := range part { // Put, Update, Delete
				needed = append(needed, Grant{service + ":" + kind + "Item", itemKind(item.Key, item.Item)})
			}
		}
		return needed
	case in.IndexName != "":
		return []Grant{{action, "index/" + in.IndexName}}
	case service == "dynamodb":
		return []Grant{{action, itemKind(in.Key, in.Item, in.ExpressionAttributeValues)}}
	case service == "secretsmanager":
		needed := []Grant{{action, secretKind(in.SecretId + in.Name)}}
		if operation == "CreateSecret" && len(in.Tags) > 0 {
			needed = append(needed, Grant{"secretsmanager:TagResource", needed[0].Kind})
		}
		return needed
	case service == "kms":
		return []Grant{{action, "SealKey"}} // the other one is used by the stores
	}
	return []Grant{{action, ""}}
}

var keyPrefix = regexp.MustCompile(`"S":"([A-Z]+#)`)

func itemKind(from ...map[string]any) string {
	for _, where := range from {
		for _, name := range []string{"pk", ":0", ":1"} { // a query has its key among its values
			text, _ := json.Marshal(where[name])
			if m := keyPrefix.FindSubmatch(text); m != nil && !strings.HasPrefix(string(m[1]), "MINT") {
				return string(m[1])
			}
		}
	}
	return ""
}

func secretKind(name string) string {
	for _, kind := range []string{"app", "connection"} {
		if strings.Contains(name, "/"+kind+"/") {
			return kind
		}
	}
	return ""
}
