// Package schedule calls a function at times that cron expressions name.
//
// An expression has cron's five fields (minute, hour, day of the month, month, day of the week), or is @hourly, @daily, @weekly, @monthly or @yearly. CRON_TZ=Europe/Berlin before it names a time zone;
// without, it is the machine's. If both day fields are given a day that fits one of them will do.
//
// Where clocks are put forward, an expression that names hours runs at the moment of the change if its time is skipped; where they are put back, it runs the first time only. One that takes any hour (its
// hour field begins with *) runs by the minutes that really pass. That is what Vixie's cron does.
//
// Runs don't overlap. A time that comes while the run before it goes on is skipped. So is one that is noticed more than an hour late (the machine slept, or its clock was put forward); one that is less
// late is run, once, whatever number of them has passed. If the clock is put back by less than three hours, what has been run isn't run again.
package schedule
