package rotationtest

import (
	"cmp"
	"encoding/json"
	"iter"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tokenturn/tokenturn/pkg/rotation"
	"github.com/tokenturn/tokenturn/pkg/token"
)

// same compares what a store gave back with what it was given. Revisions are
// not compared, times only to the millisecond, and an empty list is like none.
func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if g, w := canonical(got), canonical(want); g != w {
		t.Errorf("%s:\n got %.4000s\nwant %.4000s", what, g, w)
	}
}

func canonical(v any) string {
	inMilliseconds := func(at time.Time) time.Time { return at.UTC().Truncate(time.Millisecond) }
	text, err := json.Marshal(copyValue(reflect.ValueOf(v), inMilliseconds).Interface())
	if err != nil {
		panic(err)
	}
	return string(text)
}

// deepCopy returns a copy that shares no memory with v that could change. It is fast, because
// the explorer calls it most often.
func deepCopy[T any](v T) T {
	detach(reflect.ValueOf(&v).Elem())
	return v
}

// detach replaces everything that v points to by copies. v must be settable.
func detach(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			copied := reflect.New(v.Type().Elem())
			copied.Elem().Set(v.Elem())
			detach(copied.Elem())
			v.Set(copied)
		}
	case reflect.Slice:
		if v.Len() == 0 {
			v.SetZero()
			return
		}
		copied := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(copied, v)
		v.Set(copied)
		if len(shared(v.Type().Elem())) > 0 {
			for i := range v.Len() {
				detach(v.Index(i))
			}
		}
	case reflect.Struct:
		for _, i := range shared(v.Type()) {
			detach(v.Field(i))
		}
	}
}

// sharedFields caches the results of shared.
var sharedFields sync.Map

// shared lists the fields of t that may point to memory, if t is a struct. A time points only
// to its zone, which never changes.
func shared(t reflect.Type) []int {
	if known, ok := sharedFields.Load(t); ok {
		return known.([]int)
	}
	var fields []int
	if t.Kind() == reflect.Struct && t != timeType {
		for i := range t.NumField() {
			kind := t.Field(i).Type.Kind()
			nested := kind == reflect.Struct && len(shared(t.Field(i).Type)) > 0
			if t.Field(i).IsExported() && (kind == reflect.Pointer || kind == reflect.Slice || nested) {
				fields = append(fields, i)
			}
		}
	}
	sharedFields.Store(t, fields)
	return fields
}

var timeType = reflect.TypeFor[time.Time]()

// copyValue copies v deeply; a list without elements becomes none.
func copyValue(v reflect.Value, onTime func(time.Time) time.Time) reflect.Value {
	switch {
	case v.Type() == timeType:
		return reflect.ValueOf(onTime(v.Interface().(time.Time)))
	case v.Kind() == reflect.Pointer && !v.IsNil():
		copied := reflect.New(v.Type().Elem())
		copied.Elem().Set(copyValue(v.Elem(), onTime))
		return copied
	case v.Kind() == reflect.Struct:
		copied := reflect.New(v.Type()).Elem()
		copied.Set(v)
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				copied.Field(i).Set(copyValue(v.Field(i), onTime))
			}
		}
		return copied
	case v.Kind() == reflect.Slice && v.Len() == 0:
		return reflect.Zero(v.Type())
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8:
		return reflect.ValueOf(slices.Clone(v.Bytes())).Convert(v.Type())
	case v.Kind() == reflect.Slice:
		copied := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			copied.Index(i).Set(copyValue(v.Index(i), onTime))
		}
		return copied
	}
	return v
}

func compareKeys(a, b rotation.ResponseKey) int {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Generation, b.Generation), cmp.Compare(a.Attempt,
		b.Attempt))
}

func compareConnections(a, b token.Connection) int { return cmp.Compare(a.String(), b.String()) }

// noise is n bytes that do not compress and are the same in every run.
func noise(n int) []byte {
	bytes := make([]byte, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range bytes {
		bytes[i] = byte(r.Uint32())
	}
	return bytes
}

// sorted iterates over m in the order of its names, so that every run of a test is the same.
func sorted[V any](m map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			if !yield(name, m[name]) {
				return
			}
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
