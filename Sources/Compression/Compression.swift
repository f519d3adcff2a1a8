// Compression: gzip and zstd, decompressed with ISA-L and libzstd, compressed with zlib and libzstd.
//
// The module does no I/O and starts no threads, except the workers of libzstd. It treats compressed data as hostile: output and memory are
// bounded, and every error names the offset.
//
// - `CompressionFormat` detects a format by its magic number; `ForeignFormat` names formats that are not supported.
// - `Decompressor` decompresses a stream incrementally into the caller's buffer.
// - `GzipMember`, `GzipBlockCompressor` and `ZstdCompressor` produce bytes that do not depend on the processor or the number of threads.
