// Package crash knows what may be on a disk after a power cut.
//
// An Oracle follows a load: it is told of every call before the call is made, and again when it has returned. Everything that can change
// on its own (a block, a size, a mode, what a name means) has a history of values:
//
//	set     the first: known to be durable
//	maybe   all later ones, in the order in which they were asked for
//
// An fsync that returned makes set what had returned when it was called, and drops what is older. After a power cut each history may show
// any value that it still has, and nothing else. Sectors of a block may come from different values of it, since a write may be
// cut in its middle.
//
// Histories are independent: a later change may have survived and an earlier one not. What is demanded beyond that: an inode that a durable name
// meant, and that nobody has removed, is found under one of the names that it may have. So a rename leaves the old name or the new one.
//
// What is seen after a power cut is durable, and the histories begin anew with it. So one Oracle lasts for many power cuts.
package crash
