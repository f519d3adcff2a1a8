// Tar: an incremental parser of tar archives.
//
// The module does no I/O, extracts nothing and applies no layer semantics: whiteouts and unsafe paths are ImageStore's task. It treats
// archives as hostile; memory use is bounded by `TarLimits`.
//
// - `TarParser` takes an archive in parts of any size and calls a `TarHandler` with entries, external content and inline bytes.
// - `TarEntry` is a parsed entry; `TarContent` says whether its content is inline (at most 64 bytes) or external.
// - `TarSparse` and `SparseExpansion` restore the holes of sparse files.
