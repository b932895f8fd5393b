package rotationtest

import (
	"sync"
)

// result is what one racer got.
type result[T any] struct {
	value T
	err   error
}

// race lets n callers go at once and returns what each got.
func race[T any](n int, call func(n int) (T, error)) []result[T] {
	results := make([]result[T], n)
	gun := make(chan struct{})
	var racers sync.WaitGroup
	for i := range n {
		racers.Go(func() {
			<-gun
			results[i].value, results[i].err = call(i)
		})
	}
	close(gun)
	racers.Wait()
	return results
}
