// Bytes: values and codecs for raw bytes, which every other module builds on.
//
// The module does no I/O and knows no format. Its functions never trap on input: readers check bounds and report what is missing.
//
// - `ByteString` is a name, path or link target without an encoding; it is used instead of `String` for everything from the kernel.
// - `ByteReader` and `ByteWriter` decode and encode little-endian structures field by field.
// - `RandomAccessBytes` is a source that can be read at any offset.
// - `Hex` and `Base64` are the text encodings of digests and documents.
// - `LargeArray` and `LargeTable` hold what grows with the number of files, in memory that `LargeMemory` provides.
