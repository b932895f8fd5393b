package procore

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// The fields of a token answer (RFC 6749 section 5.1; created_at and
// expires_in_seconds are Doorkeeper's). All others are ignored.
var known = []string{"refresh_token", "access_token", "token_type", "expires_in", "expires_in_seconds", "created_at"}

// Parse judges the body of a 2xx answer of the token endpoint, in any encoding
// that decode knows.
//
// Sound is a JSON object with a refresh token, an access token, a bearer
// token_type in any case, and a positive expires_in or expires_in_seconds that is
// a number or a numeric string. created_at may be missing; unknown fields are
// ignored.
//
// Salvaged is any other answer with exactly one complete refresh token: JSON that
// is cut off or invalid after it, text around it, an object inside another, a form,
// a damaged stream. Pair then has the other complete fields, and Reason names what
// is missing. Lifetime 0 means that the answer does not give the lifetime of the
// access token, or gives one that is not positive; nothing else in the answer
// replaces it. A refresh token without an access token, as an import stores it, is
// Salvaged too.
//
// AccessOnly is an answer of the client credentials grant: everything that Sound
// has except the refresh token.
//
// Empty is text without a complete refresh token, or no text: an error page, an
// answer that is cut off before it. A token that is cut off before its closing
// quote, or in a form before the next field, is not complete. Contradictory is an
// answer with several different refresh tokens, even if a name occurs twice.
//
// Unreadable is any other answer without a refresh token that may still contain one:
// some of the bytes belong to no encoding that decode knows, or a field of that name
// has a value in an unknown form (XML, JSON within a string, ...), or the text is one
// long word. An answer that is too long when unpacked is Unreadable, whatever it
// contains.
//
// Every returned value occurs in the decoded body in full, and Reason contains
// nothing of the body except an error code that the OAuth RFCs define.
func Parse(body token.Secret) rotation.Judgement {
	read := decode(body.Reveal(), maxLayers)
	j := parseText(read.text)
	switch {
	case read.packed && len(read.text) > maxPair && j.Verdict != rotation.Empty:
		return rotation.Judgement{Verdict: rotation.Unreadable, Reason: "the unpacked answer is too long"}
	case (j.Verdict == rotation.Empty || j.Verdict == rotation.AccessOnly) && !read.explained:
		return rotation.Judgement{Verdict: rotation.Unreadable, Reason: read.odd}
	case j.Verdict == rotation.Sound && !read.explained:
		j.Verdict, j.Reason = rotation.Salvaged, read.odd
	}
	return j
}

var (
	// namedValue is a field called refresh_token, refreshToken or the like, however it is
	// quoted, escaped or marked up, with something after it that can be a whole token.
	namedValue = regexp.MustCompile(`(?is)refresh(?:_|-|\\u005f|&#95;|%5f)?token` +
		`(?:[\\"'\s]|&quot;|%22)*(?:[:=>{]|%3a|%3d)(?:[^,;]|&quot;){0,40}?[a-z0-9._~+/-]{8,}[^a-z0-9._~+/-]`)
	// asExpected is where salvage has looked.
	asExpected = regexp.MustCompile(`"refresh_token"\s*:\s*"[^"]*`)
	// oneWord is what an encoded or encrypted answer looks like, such as base64, hex, a JWT.
	oneWord = regexp.MustCompile(`^\s*"?[A-Za-z0-9._~+/=-]{64,}"?\s*$`)
)

// mayHoldPair reports whether a text in which no refresh token was found may hold one
// all the same, in a form that only a person knows.
func mayHoldPair(text string) bool {
	return len(text) <= maxPair &&
		(namedValue.MatchString(asExpected.ReplaceAllString(text, "")) || oneWord.MatchString(text))
}

// maxPair is the longest text of a pair that fits into a secret.
const maxPair = 24 << 10

// parseText judges an answer's text.
func parseText(text string) rotation.Judgement {
	sound, ok := strict(text)
	if ok && len(sound["refresh_token"]) > 0 {
		return judge(sound, "")
	}
	found, rest := salvage(text)
	switch refresh := distinct(found["refresh_token"]); {
	case len(refresh) == 0:
		if pair, oddities := accessOf(sound); ok && len(oddities) == 0 {
			return rotation.Judgement{Verdict: rotation.AccessOnly, Pair: pair, Reason: "the answer has no refresh token"}
		}
		if mayHoldPair(text) {
			return rotation.Judgement{Verdict: rotation.Unreadable,
				Reason: "the answer may hold a refresh token in a form that is not known"}
		}
		return rotation.Judgement{Verdict: rotation.Empty, Reason: whyEmpty(text)}
	case len(refresh) == 1 && rest != "" && !strings.HasPrefix(refresh[0], rest):
		return rotation.Judgement{Verdict: rotation.Contradictory,
			Reason: "the answer has one refresh token and the beginning of another"}
	}
	return judge(found, "the answer is not a valid JSON object")
}

// fields has the values found for each known field, in order.
type fields map[string][]string

// strict reads a JSON object. ok is false if text is anything else. Unlike
// json.Unmarshal it keeps every value of a name that occurs twice.
func strict(text string) (_ fields, ok bool) {
	if !json.Valid([]byte(text)) {
		return nil, false
	}
	d := json.NewDecoder(strings.NewReader(text))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, false
	}
	found := fields{}
	for d.More() {
		name, err := d.Token()
		var value json.RawMessage
		if err != nil || d.Decode(&value) != nil {
			return nil, false
		}
		if field, _ := name.(string); slices.Contains(known, field) {
			if plain, ok := scalar(value, isNumeric(field)); ok && presentable(plain) {
				found[field] = append(found[field], plain)
			}
		}
	}
	return found, true
}

func isNumeric(field string) bool {
	return field == "expires_in" || field == "expires_in_seconds" || field == "created_at"
}

// scalar returns the text of a JSON string or, if numeric is set, of a number.
func scalar(value []byte, numeric bool) (string, bool) {
	value = bytes.TrimSpace(value)
	if len(value) == 0 {
		return "", false
	}
	if value[0] == '"' {
		var text string
		err := json.Unmarshal(value, &text)
		return text, err == nil
	}
	return string(value), numeric && (value[0] == '-' || '0' <= value[0] && value[0] <= '9')
}

// presentable reports whether text can be a token (RFC 6749 appendix A.12 and
// A.17). It also refuses characters that decoding put in the place of invalid UTF-8.
func presentable(text string) bool { return text != "" && visible(text) }

// judge gives the verdict on fields with at least one refresh token. odd says what
// is wrong with the answer as a whole, if anything.
func judge(found fields, odd string) rotation.Judgement {
	refresh := distinct(found["refresh_token"])
	if len(refresh) > 1 {
		return rotation.Judgement{Verdict: rotation.Contradictory, Reason: "the answer has different refresh tokens"}
	}
	var oddities []string
	if odd != "" {
		oddities = append(oddities, odd)
	}
	pair, more := accessOf(found)
	oddities = append(oddities, more...)
	pair.RefreshToken = token.NewSecret(refresh[0])
	verdict := rotation.Sound
	if len(oddities) > 0 {
		verdict = rotation.Salvaged
	}
	return rotation.Judgement{Verdict: verdict, Reason: strings.Join(oddities, "; "), Pair: pair}
}

// accessOf returns the access token's part of the pair, and what is missing or
// wrong in it.
func accessOf(found fields) (pair token.Pair, oddities []string) {
	access, kind := only(found["access_token"]), only(found["token_type"])
	lifetime := lifetimeOf(only(slices.Concat(found["expires_in"], found["expires_in_seconds"])))
	for _, lack := range []struct {
		is   bool
		text string
	}{
		{access == "", "it has no access token, or more than one"},
		{!strings.EqualFold(kind, "bearer"), "its token_type is not bearer"},
		{lifetime <= 0, "it does not give the lifetime of the access token"},
	} {
		if lack.is {
			oddities = append(oddities, lack.text)
		}
	}
	return token.Pair{AccessToken: token.NewSecret(access), TokenType: kind,
		Lifetime: lifetime, CreatedAt: createdAt(only(found["created_at"]))}, oddities
}

// distinct returns the values without repetitions.
func distinct(values []string) []string { return slices.Compact(slices.Sorted(slices.Values(values))) }

// only returns the single value; "" if there is none or they differ.
func only(values []string) string {
	if d := distinct(values); len(d) == 1 {
		return d[0]
	}
	return ""
}

// lifetimeOf reads expires_in; 0 if it is not a positive, believable number of seconds.
func lifetimeOf(text string) time.Duration {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(1 <= n && n <= maxSeconds) {
		return 0
	}
	return time.Duration(n) * time.Second
}

// createdAt reads Unix seconds; the zero time if they are missing or cannot be
// a time, such as milliseconds.
func createdAt(text string) time.Time {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n <= 0 || n > maxSeconds {
		return time.Time{}
	}
	return time.Unix(n, 0).UTC()
}

func whyEmpty(text string) string {
	switch code := errorCode(text); {
	case strings.TrimSpace(text) == "":
		return "the answer is empty"
	case code != "":
		return "the answer has no refresh token; its error is " + code
	}
	return "the answer has no complete refresh token"
}
