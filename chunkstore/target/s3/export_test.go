package s3

// SetSizes makes objects longer than single go up in parts of the given size, so that tests of these need not send hundreds of MiB.
func (b *Bucket) SetSizes(single, part int64) { b.single, b.part = single, part }
