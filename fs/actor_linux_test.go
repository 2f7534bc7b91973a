package fs

import "unsafe"

func sliceAddr(p []uint32) uintptr { return uintptr(unsafe.Pointer(&p[0])) }
