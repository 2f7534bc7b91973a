package fs

import (
	"strings"
	"testing"
)

// scripts are what a passing-through filesystem easily gets wrong. The plain filesystem is the judge.
func scripts() map[string]string {
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
		"an open file that was removed": `
			1 open @1 f rw,creat 0644
			1 pwrite @1 100 0
			1 unlink f
			1 fstat @1
			1 fchmod @1 0600
			1 fchown @1 -1 4000
			1 ftruncate @1 10
			1 futimens @1 5.6 7.8
			1 fsetxattr @1 user.k v 0
			1 fstat @1 times
			1 pread @1 100 0
			1 open @2 @1 r 0
			1 pread @2 100 0
			1 fallocate @1 0 0 5000
			1 fsync @1
			1 fstat @2
			1 linkfd @1 back
			1 close @1
			1 fstat @2
			1 close @2`,
		"an open file that was replaced": `
			1 open @1 f rw,creat 0644
			1 open @2 g rw,creat 0600
			1 pwrite @2 7 0
			1 rename g f
			1 fstat @1
			1 fstat @2
			1 fchmod @1 0611
			1 fchmod @2 0622
			1 lstat f
			1 fstat @1
			1 pwrite @1 50 0
			1 lstat f`,
		"an open directory that was removed": `
			1 mkdir d 0755
			1 open @1 d r,dir 0
			1 rmdir d
			1 fstat @1
			1 fchmod @1 0700
			1 fchown @1 -1 4000
			1 futimens @1 5 6
			1 fsetxattr @1 user.k v 0
			1 fstat @1 times
			1 ls @1
			1 open @2 @1/x rw,creat 0644
			1 mkdir d 0711
			1 fstat @1
			1 lstat d`,
		"hard links": `
			1 open @1 a rw,creat 0644
			1 link a b
			1 link a c
			1 unlink a
			1 lstat b
			1 fchmod @1 0600
			1 lstat c
			1 rename b c
			1 lstat b
			1 lstat c
			1 rename2 b c 2
			1 unlink b
			1 fstat @1
			1 symlink nowhere s
			1 link s t
			1 lstat t
			1 unlink s
			1 readlink t
			1 mkdir d 0755
			1 link d e`,
		"files without a name": `
			1 open @1 . tmp,rw 0640
			1 fstat @1
			1 pwrite @1 10 0
			1 linkfd @1 named
			1 lstat named
			1 pread @1 10 0
			1 open @2 . tmp,rw,excl 0640
			1 linkfd @2 never`,
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
		"symlinks": `
			1 open @1 f rw,creat 0644
			1 symlink f l
			1 utimens l 5.000000006 7.000000008
			1 lstat l times
			0 lchown l 65534 65534
			0 lstat l
			1 lstat f
			1 statx l
			1 statx f
			0 setxattr l trusted.k v 0
			0 listxattr l
			0 listxattr f
			0 getxattr l trusted.k
			0 setxattr l user.k v 0
			1 listxattr l
			1 chmod l 0600
			1 lstat f
			1 readlink l
			1 readlink f
			1 symlink l l2
			1 stat l2
			1 symlink loop loop
			1 stat loop
			1 open @2 loop r 0
			1 open @2 l r,nofollow 0`,
		"special files": `
			1 mknod p f 0666 0 0
			0 mknod c c 0666 1 3
			0 mknod big c 0600 4095 1048575
			0 lstat big
			1 mknod c2 c 0666 1 3
			1 mknod s s 0700 0 0
			1 lstat p
			1 lstat c
			0 setxattr p trusted.k v 0
			0 listxattr p
			0 open @1 c rw 0
			0 pread @1 10 0
			1 open @2 s r 0
			1 chmod p 0600
			1 utimens p 1 2
			1 lstat p times
			1 rename p q
			1 link q q2
			1 unlink q`,
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
		"append": `
			1 open @1 f w,creat,append 0644
			1 write @1 100
			1 pwrite @1 5 0
			1 write @1 5000
			1 fstat @1
			1 open @2 f r 0
			1 pread @2 200 0
			2 open @1 f rw,append 0
			1 ftruncate @1 50
			1 write @1 3
			1 pread @2 200 0
			1 fstat @2`,
		"write only": `
			1 open @1 f w,creat 0200
			1 pwrite @1 10 5000
			1 pwrite @1 10 100
			1 pread @1 10 0
			1 fsync @1
			1 fstat @1
			1 chmod f 0600
			1 open @2 f r 0
			1 pread @2 10 5000
			1 pread @2 20 95`,
		"holes": `
			1 open @1 f rw,creat 0644
			1 ftruncate @1 1048576
			1 seek @1 0 data
			1 seek @1 0 hole
			1 pwrite @1 4096 524288
			1 seek @1 0 data
			1 seek @1 524288 hole
			1 seek @1 528384 data
			1 seek @1 1048576 hole
			1 seek @1 2000000 data
			1 fsync @1
			1 blocks f
			1 fallocate @1 3 524288 4096
			1 fsync @1
			1 blocks f
			1 seek @1 0 data
			1 fallocate @1 1 0 2097152
			1 fstat @1
			1 fallocate @1 16 0 4096
			1 fallocate @1 0 0 2097152
			1 fstat @1
			1 fallocate @1 2 0 4096`,
		"copies": `
			1 open @1 f rw,creat 0644
			1 pwrite @1 10000 0
			1 open @2 g rw,creat 0644
			1 copy @1 0 @2 100 5000
			1 fstat @2
			1 pread @2 50 90
			1 copy @1 10000 @2 0 10
			1 copy @1 0 @1 5000 5000
			1 copy @1 0 @1 100 5000
			1 open @3 g r 0
			1 copy @1 0 @3 0 10
			1 open @4 g w,append 0
			1 copy @1 0 @4 0 10`,
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
		"renames": `
			1 mkdir a 0755
			1 mkdir a/b 0755
			1 rename a a/b/c
			1 rename a a
			1 rename a/b a
			1 open @1 f rw,creat 0644
			1 rename a f
			1 rename f a
			1 rename f f/x
			1 rename2 f a 2
			1 lstat f
			1 rename2 f a 1
			1 rename2 f none 1
			1 rename2 none x 2
			1 mkdir e 0755
			1 rename none e
			1 lstat none
			1 mkdir o 0755
			1 rename o none/b
			1 ls none
			2 rename none x
			0 rename2 a w 4
			0 lstat a`,
		"names": `
			1 mkdir ` + strings.Repeat("n", 255) + ` 0755
			1 mkdir ` + strings.Repeat("n", 256) + ` 0755
			1 lstat ` + strings.Repeat("n", 256) + `
			1 symlink ` + strings.Repeat("t/", 2000) + ` s
			1 lstat s
			1 rmdir .
			1 rmdir d/..
			1 mkdir d 0755
			1 rmdir d/.
			1 rmdir d/..
			1 unlink d
			1 open @1 f rw,creat 0644
			1 rmdir f
			1 mkdir f/x 0755
			1 lstat f/x`,
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
		"direct I/O": `
			1 open @1 f rw,creat,direct 0644
			1 open @2 f r 0
			1 ftruncate @1 10000
			1 pread @2 10 0`,
		"synchronous writes": `
			1 open @1 f w,creat,dsync 0644
			1 write @1 10000
			1 fstat @1`,
	}
}

// fileCaps stands for a security.capability that gives nothing (version 2, no capabilities); see the actor's setxattr.
const fileCaps = "CAPS"

// throughOnly begins the name of a script that the write-back mode can't satisfy.
const throughOnly = "through: "

func TestScripts(t *testing.T) {
	needRoot(t)
	bothModes(t, func(t *testing.T, w *world) {
		users := cast(t)
		for name, script := range scripts() {
			if strings.HasPrefix(name, throughOnly) && w.cache != WriteThrough {
				continue
			}
			t.Run(name, func(t *testing.T) {
				same(t, w, users, strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), "/", ""), script)
			})
		}
	})
}
