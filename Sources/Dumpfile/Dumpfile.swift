// Dumpfile: the text form of a file system tree, as `mkcomposefs --from-file` reads it (composefs-dump(5)).
//
// The module does no I/O: bytes become a `FileTree`, and a `FileTree` becomes bytes. It knows neither EROFS nor layers.
//
// - `parseDumpfile` checks every field and throws `DumpfileError` with the line and the field.
// - `writeDumpfile` and `dumpfile(of:)` write a tree; `appendDumpfileLine` writes one entry.
