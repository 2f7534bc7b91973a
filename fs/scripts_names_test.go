package fs

import "strings"

// nameScripts are about names, and inodes that lost theirs.
func nameScripts() map[string]string {
	return map[string]string{
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
	}
}
