package fs

// attrScripts are about times and extended attributes.
func attrScripts() map[string]string {
	return map[string]string{
		"extended attributes": `
			1 open @1 f rw,creat 0644
			1 setxattr f user.a one 1
			1 setxattr f user.a two 1
			1 setxattr f user.b two 2
			1 setxattr f user.a three 2
			1 getxattr f user.a
			1 getxattr f user.none
			1 rmxattr f user.none
			1 rmxattr f user.a
			1 setxattr f trusted.a x 0
			0 setxattr f trusted.a x 0
			1 getxattr f trusted.a
			1 listxattr f
			0 listxattr f
			1 setxattr f weird x 0
			2 setxattr f user.c x 0
			1 mkdir d 0755
			1 setxattr d user.k v 0
			1 listxattr d`,
		"times move": `
			1 open @1 f rw,creat 0644
			1 mkdir d 0755
			1 moved f
			1 moved d
			1 sleep
			1 chmod f 0600
			1 moved f
			1 sleep
			1 pwrite @1 10 0
			1 moved f
			1 sleep
			1 truncate f 5
			1 moved f
			1 sleep
			1 ftruncate @1 5
			1 moved f
			1 sleep
			1 link f d/g
			1 moved f
			1 moved d
			1 sleep
			1 rename d/g d/h
			1 moved f
			1 moved d
			1 sleep
			1 unlink d/h
			1 moved f
			1 moved d
			1 sleep
			1 setxattr f user.k v 0
			1 moved f
			1 sleep
			0 chown f -1 -1
			1 moved f
			1 sleep
			1 utimens f 5 6
			1 moved f
			1 sleep
			1 utimens f omit omit
			1 moved f
			1 sleep
			1 fallocate @1 0 0 5000
			1 moved f
			1 sleep
			1 mkdir d/e 0755
			1 moved d
			1 moved d/e
			1 sleep
			1 rename d/e e
			1 moved d
			1 moved e
			1 sleep
			1 symlink x d/s
			1 moved d
			1 sleep
			1 setacl f access u:6,g:4,o:0
			1 moved f
			1 lstat f`,
		// In the write-back mode the kernel keeps the times itself, and doesn't renew them here.
		throughOnly + "truncate to the same size": `
			1 open @1 f rw,creat 0644
			1 pwrite @1 10 0
			1 moved f
			1 sleep
			1 truncate f 10
			1 moved f`,
		"file times survive": `
			1 open @1 f rw,creat 0644
			1 pwrite @1 10 0
			1 utimens f 1.000000001 2.999999999
			1 lstat f times
			1 close @1
			1 lstat f times
			1 utimens f -1 4294967296
			1 lstat f times
			1 open @1 f rw 0
			1 futimens @1 omit 77.5
			1 lstat f times`,
	}
}
