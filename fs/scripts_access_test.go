package fs

// accessScripts are about permissions, and what a change takes away or hands down: modes, owners, set-id bits, ACLs.
func accessScripts() map[string]string {
	return map[string]string{
		"mode 0 is mode 0": `
			1 open @1 f rw,creat 0
			1 pwrite @1 10 0
			1 fsync @1
			1 pread @1 10 0
			1 lstat f
			1 open @2 f r 0
			1 open @2 @1 r 0
			1 truncate f 3
			1 ftruncate @1 3
			1 fstat @1
			2 open @1 f r 0`,
		"permissions": `
			0 mkdir r 0755
			0 open @1 r/f rw,creat 0600
			1 unlink r/f
			1 chmod r/f 0777
			1 chown r/f 65533 65533
			1 open @1 r/f r 0
			1 truncate r/f 0
			1 mkdir r/d 0777
			1 rename r/f f
			1 setxattr r/f user.x y 0
			1 utimens r/f now now
			0 chmod r/f 0666
			1 utimens r/f now now
			1 utimens r/f 1 1`,
		"sticky directories": `
			0 mkdir s 0777
			0 chmod s 01777
			1 open @1 s/f rw,creat 0666
			2 unlink s/f
			2 rename s/f s/g
			2 open @1 s/h rw,creat 0666
			1 rename s/f s/h
			1 rename s/f s/i
			2 unlink s/h
			0 unlink s/i`,
		"setgid directories": `
			0 mkdir g 0777
			0 chown g 0 4000
			0 chmod g 02777
			1 open @1 g/f rw,creat 02777
			1 lstat g/f
			1 mkdir g/d 0777
			1 lstat g/d
			2 open @1 g/h rw,creat 02775
			2 lstat g/h
			2 mknod g/p f 02775 0 0
			2 lstat g/p
			2 symlink x g/s
			2 lstat g/s
			2 open @2 g tmp,rw 02775
			2 fstat @2
			1 chmod g/f 02755
			1 lstat g/f
			2 chmod g/h 02755
			2 lstat g/h`,
		"write clears setuid": `
			1 open @1 f rw,creat 0755
			1 chmod f 06755
			1 pwrite @1 1 0
			1 lstat f
			1 chmod f 02745
			1 pwrite @1 1 0
			1 lstat f
			1 chmod f 06777
			2 open @2 f w 0
			2 write @2 3
			2 lstat f
			1 chmod f 06755
			0 open @3 f w 0
			0 write @3 3
			0 lstat f`,
		"truncate and fallocate clear setuid": `
			1 open @1 f rw,creat 0755
			1 chmod f 06755
			1 truncate f 100
			1 lstat f
			1 chmod f 06755
			1 ftruncate @1 50
			1 lstat f
			1 chmod f 06755
			1 fallocate @1 0 0 9000
			1 lstat f
			1 chmod f 06755
			1 open @2 f rw,trunc 0
			1 lstat f
			1 open @3 g rw,creat 0755
			1 pwrite @3 5000 0
			1 chmod f 06755
			1 copy @3 0 @1 0 5000
			1 lstat f
			1 chmod f 06755
			0 truncate f 3
			0 lstat f`,
		"chown clears setuid": `
			1 open @1 f rw,creat 0755
			1 chmod f 06755
			1 chown f -1 4000
			1 lstat f
			0 chmod f 06755
			0 chown f 65534 65534
			0 lstat f
			0 chmod f 02745
			0 chown f 65533 65533
			0 lstat f
			0 chmod f 06755
			0 chown f -1 -1
			0 lstat f
			1 mkdir d 0755
			0 chmod d 06755
			0 chown d 65534 65534
			0 lstat d`,
		"capabilities are cleared": `
			0 open @1 f rw,creat 0755
			0 setxattr f security.capability ` + fileCaps + ` 0
			0 listxattr f
			0 pwrite @1 10 0
			0 listxattr f
			0 setxattr f security.capability ` + fileCaps + ` 0
			0 chown f 65533 65533
			0 listxattr f
			0 setxattr f security.capability ` + fileCaps + ` 0
			0 truncate f 1
			0 listxattr f`,
		"default ACLs": `
			1 mkdir d 0777
			1 setacl d default u:7,user:6:65534,g:5,m:7,o:1
			2 mkdir d/sub 0777
			0 open @1 d/f rw,creat 0666
			0 lstat d/f
			0 getacl d/f access
			1 mkdir d/e 0777
			1 lstat d/e
			1 getacl d/e default
			1 getacl d/e access
			1 chmod d/e 0700
			1 getacl d/e access
			1 mknod d/p f 0666 0 0
			1 lstat d/p
			1 mkdir e 0777
			1 setacl e default u:7,g:7,o:7
			2 mkdir e/x 0777
			0 lstat e/x
			0 mkdir e/y 0777
			0 lstat e/y`,
		"access ACLs": `
			1 open @1 f rw,creat 0600
			2 open @1 f r 0
			1 setacl f access u:6,user:4:65534,g:0,m:4,o:0
			2 open @1 f r 0
			2 open @1 f rw 0
			1 lstat f
			1 chmod f 02600
			1 setacl f access u:6,user:4:65534,g:0,m:4,o:0
			1 lstat f
			2 open @2 f r 0
			1 rmxattr f system.posix_acl_access
			2 open @2 f r 0
			1 lstat f`,
	}
}
