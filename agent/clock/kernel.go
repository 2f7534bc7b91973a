package clock

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// What adjtimex(2) says, which golang.org/x/sys has no names for.
const (
	staUnsync = 0x0040
	staNano   = 0x2000
	timeError = 5
)

// Synchronised tells whether something keeps this machine's clock synchronised, by the kernel's word.
func Synchronised() bool { return readKernel().Synchronised }

// readKernel asks the kernel, which knows what the daemon that sets the clock has told it: chrony, ntpd or systemd-timesyncd.
func readKernel() Reading {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return Reading{Kind: KindKernel, Problem: fmt.Sprintf("the kernel doesn't tell the state of its clock: %v", err)}
	}
	return kernelReading(state, &t)
}

func kernelReading(state int, t *unix.Timex) Reading {
	r := Reading{Kind: KindKernel}
	if state == timeError || t.Status&staUnsync != 0 {
		r.Problem = "nothing keeps this machine's clock synchronised"
		return r
	}
	unit := time.Microsecond
	if t.Status&staNano != 0 {
		unit = time.Nanosecond
	}
	// The kernel's offset is what is still to be added to the clock.
	r.Offset, r.Error = -time.Duration(t.Offset)*unit, time.Duration(t.Maxerror)*time.Microsecond
	r.Known, r.Synchronised = true, true
	return r
}
