package procore

import (
	"net/url"
	"strings"
)

// salvage searches for the known fields in a text that is not a valid JSON object.
// rest is the beginning of a refresh token that is cut off at the end of the text,
// if there is one.
func salvage(text string) (found fields, rest string) {
	if strings.ContainsAny(text, "\"{}<>") {
		return salvageJSON(text)
	}
	return salvageForm(text)
}

// salvageJSON finds "name": value anywhere. A string counts only with both quotes, a
// number only if a character follows that cannot belong to it.
func salvageJSON(text string) (found fields, rest string) {
	found = fields{}
	for _, field := range known {
		values, broken := valuesOf(text, field)
		for _, value := range values {
			if plain, ok := scalar([]byte(value), isNumeric(field)); ok && plausible(plain) {
				found[field] = append(found[field], plain)
			}
		}
		if field == "refresh_token" {
			rest = strings.TrimPrefix(broken, `"`)
		}
	}
	return found, rest
}

// valuesOf returns the value after each `"field":`, and the one that is cut off at the
// end of the text.
func valuesOf(text, field string) (values []string, broken string) {
	for {
		_, after, ok := strings.Cut(text, `"`+field+`"`)
		if !ok {
			return values, ""
		}
		text = after
		colon := strings.TrimLeft(text, " \t\r\n")
		if !strings.HasPrefix(colon, ":") {
			continue
		}
		value := strings.TrimLeft(colon[1:], " \t\r\n")
		end := valueEnd(value)
		if end < 0 {
			return values, value
		}
		values = append(values, value[:end])
		text = value[end:]
	}
}

// valueEnd returns the length of the string or number at the beginning of text: 0
// if there is neither, -1 if it may continue after the end of the text.
func valueEnd(text string) int {
	if !strings.HasPrefix(text, `"`) {
		rest := strings.TrimLeft(text, "+-.0123456789eE")
		if rest == "" {
			return -1
		}
		return len(text) - len(rest)
	}
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// salvageForm reads application/x-www-form-urlencoded. The last field does not
// count unless a line break ends it, because it may be incomplete.
func salvageForm(text string) (found fields, rest string) {
	found = fields{}
	whole := strings.TrimRight(text, "\r\n") != text
	parts := strings.Split(strings.TrimSpace(text), "&")
	for n, part := range parts {
		name, raw, _ := strings.Cut(part, "=")
		value, err := url.QueryUnescape(raw)
		switch {
		case n == len(parts)-1 && !whole:
			if name == "refresh_token" {
				rest = value
			}
		case err == nil && plausible(value):
			found[name] = append(found[name], value)
		}
	}
	return found, rest
}

// plausible is presentable without the characters that show that a token runs into
// other text, such as an error page or the next field.
func plausible(text string) bool {
	return presentable(text) && !strings.ContainsAny(text, "\"'\\<>{},")
}
