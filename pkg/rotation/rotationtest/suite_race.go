package rotationtest

import (
	"sync"
)

// result is the result of one caller.
type result[T any] struct {
	value T
	err   error
}

// race starts n callers at the same time and returns the result of each.
func race[T any](n int, call func(n int) (T, error)) []result[T] {
	results := make([]result[T], n)
	begin := make(chan struct{})
	var racers sync.WaitGroup
	for i := range n {
		racers.Go(func() {
			<-begin
			results[i].value, results[i].err = call(i)
		})
	}
	close(begin)
	racers.Wait()
	return results
}
