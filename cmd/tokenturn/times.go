package main

import (
	"fmt"
	"time"
)

// stamp formats a time for people.
func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }

// distance formats the time between now and t, as precisely as a person needs it.
func distance(t, now time.Time) string {
	d := t.Sub(now)
	size := d.Abs()
	unit := time.Hour
	switch {
	case size < 2*time.Minute:
		unit = time.Second
	case size < 2*time.Hour:
		unit = time.Minute
	}
	number := fmt.Sprintf("%d%s", size/unit, map[time.Duration]string{time.Second: "s", time.Minute: "m",
		time.Hour: "h"}[unit])
	if d < 0 {
		return number + " ago"
	}
	return "in " + number
}

// when formats a time for a table.
func when(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return distance(t, now)
}

// next formats a due time for a table.
func next(t, now time.Time) string {
	if !t.IsZero() && !t.After(now) {
		return "now"
	}
	return when(t, now)
}
