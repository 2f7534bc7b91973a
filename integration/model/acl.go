package model

import "encoding/binary"

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// acl is an access control list with one named user, so that it is never equivalent to mode bits.
type acl struct {
	owner, user, group, mask, other uint16
	id                              uint32
}

func (a *acl) bits() uint32 { return uint32(a.owner)<<6 | uint32(a.mask)<<3 | uint32(a.other) }

// encode is the form of the xattr: version 2, then tag, permissions and id of each entry.
func (a *acl) encode() string {
	const none = ^uint32(0)
	out := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, a.owner, none}, {2, a.user, a.id}, {4, a.group, none}, {0x10, a.mask, none}, {0x20, a.other, none}} {
		out = binary.LittleEndian.AppendUint16(out, e.tag)
		out = binary.LittleEndian.AppendUint16(out, e.perm)
		out = binary.LittleEndian.AppendUint32(out, e.id)
	}
	return string(out)
}

// chmod is what the kernel does to a list when the mode changes.
func (a *acl) chmod(mode uint32) *acl {
	c := *a
	c.owner, c.mask, c.other = uint16(mode>>6&7), uint16(mode>>3&7), uint16(mode&7)
	return &c
}

// inherit gives a new inode its parent's default list, cut down by the mode asked for.
func (a *acl) inherit(mode uint32) *acl {
	c := *a
	c.owner &= uint16(mode >> 6 & 7)
	c.mask &= uint16(mode >> 3 & 7)
	c.other &= uint16(mode & 7)
	return &c
}
