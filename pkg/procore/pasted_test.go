package procore

import (
	"errors"
	"strings"
	"testing"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

var pastedFor = rotation.Application{Environment: "sandbox", LoginURL: "https://login-sandbox.procore.com"}

func TestPastedCode(t *testing.T) {
	code := strings.Repeat("0123456789abcdef", 4)
	for _, pasted := range []string{code, " " + code + "\n", "'" + code + "'", `"` + code + `"`, "`" + code + "`",
		"code=" + code, "code=" + code + "&state=x",
		"code='" + code + "'", "https://login-sandbox.procore.com/oauth/authorize/" + code,
		"https://LOGIN-sandbox.procore.com/oauth/authorize/native?code=" + code,
		"<https://login-sandbox.procore.com/oauth/authorize/native?code=" + code + ">",
		"https://elsewhere.procore.com/oauth/authorize/native?code=" + code,
		"login-sandbox.procore.com/oauth/authorize/" + code,
		"login-sandbox.procore.com/oauth/authorize/native?code=" + code,
		"\u00a0“" + code + "”\u200b",
		"http://localhost/?state=x&code=" + code} {
		if got, err := PastedCode(pastedFor, token.NewSecret(pasted)); err != nil || got.Reveal() != code {
			t.Errorf("%q: %v", pasted, err)
		}
	}
}

func TestPastedCodeRefuses(t *testing.T) {
	for want, some := range map[error][]string{
		ErrNothingPasted: {"", "  ", "''", "\n\t"},
		ErrNoCode: {"code=", "code=''", "two words", "code=%zz", "code=a%20b",
			"https://login-sandbox.procore.com/oauth/authorize/native",
			"https://login-sandbox.procore.com/", "https://login-sandbox.procore.com/oauth/authorize", `{"code":"x"}`,
			strings.Repeat("x", 3000), "\x1b[31mcode\x1b[0m", "http://localhost/?error=invalid_scope&code=x"},
		ErrDenied: {"http://localhost/?error=access_denied&code=x"},
	} {
		for _, pasted := range some {
			if got, err := PastedCode(pastedFor, token.NewSecret(pasted)); !errors.Is(err, want) || !got.IsZero() {
				t.Errorf("%.60q: %v, want %v", pasted, err, want)
			}
		}
	}
}

// A code is never presented to another environment than the one that gave it.
func TestPastedCodeOfAnotherEnvironment(t *testing.T) {
	if _, err := PastedCode(pastedFor, token.NewSecret("login.procore.com/oauth/authorize/canary-code")); err == nil {
		t.Error("without its scheme, the address of another environment is taken")
	}
	_, err := PastedCode(pastedFor, token.NewSecret("https://login.procore.com/oauth/authorize/canary-code"))
	other, ok := errors.AsType[*OtherEnvironmentError](err)
	if !ok || other.Environment != "production" || other.Wanted != "sandbox" {
		t.Fatalf("got %v", err)
	}
	for _, name := range []string{"production", "login.procore.com", "sandbox", "https://login-sandbox.procore.com"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%q does not name %s", err, name)
		}
	}
	if strings.Contains(err.Error(), "canary") {
		t.Errorf("%q contains the code", err)
	}
}

func FuzzPastedCode(f *testing.F) {
	f.Add("code=abc&state=x")
	f.Add("https://login.procore.com/oauth/authorize/native?code=abc")
	f.Add("\x1b[2J'abc'")
	f.Fuzz(func(t *testing.T, pasted string) {
		code, err := PastedCode(pastedFor, token.NewSecret(pasted))
		if (err == nil) == code.IsZero() {
			t.Fatalf("code and error disagree: %v", err)
		}
		if err == nil && (len(code.Reveal()) > 2048 || strings.ContainsAny(code.Reveal(), " \t\r\n\x1b")) {
			t.Fatal("that is no code")
		}
	})
}
