package token

import (
	"fmt"
	"regexp"
	"strings"
)

// Connection names one user's consent to the app: "<environment>/<name>".
// It is comparable. People, tables and secrets use its text form.
type Connection struct {
	Environment string
	Name        string
}

var label = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// ParseConnection reads "<environment>/<name>". Both parts consist of 1 to 63
// lower-case letters, digits and hyphens and do not start with a hyphen.
func ParseConnection(text string) (Connection, error) {
	environment, name, found := strings.Cut(text, "/")
	if !found || !label.MatchString(environment) || !label.MatchString(name) {
		return Connection{}, fmt.Errorf("connection %.130q is not of the form environment/name, "+
			"such as sandbox/acme (lower-case letters, digits and hyphens, at most 63 each)", text)
	}
	return Connection{environment, name}, nil
}

// ParseEnvironment checks the name of an environment.
func ParseEnvironment(text string) (string, error) {
	if !label.MatchString(text) {
		return "", fmt.Errorf("environment %.70q is not a name such as sandbox or production "+
			"(lower-case letters, digits and hyphens, at most 63)", text)
	}
	return text, nil
}

// String returns the form that ParseConnection reads.
func (c Connection) String() string { return c.Environment + "/" + c.Name }

// IsZero reports whether c names nothing.
func (c Connection) IsZero() bool { return c == Connection{} }

// MarshalText makes JSON and DynamoDB use the text form.
func (c Connection) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText is the reverse of MarshalText and as strict as ParseConnection.
func (c *Connection) UnmarshalText(text []byte) error {
	parsed, err := ParseConnection(string(text))
	if err != nil {
		return err
	}
	*c = parsed
	return nil
}
