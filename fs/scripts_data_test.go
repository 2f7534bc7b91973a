package fs

// dataScripts are about content.
func dataScripts() map[string]string {
	return map[string]string{
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
