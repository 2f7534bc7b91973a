// Package input tests what graphvol does about what nobody should give it: a backing that was changed behind its back, strange names,
// great numbers, and two servers for one volume.
package input
