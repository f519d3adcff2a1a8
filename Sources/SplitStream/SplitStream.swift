// SplitStream: the split stream format, in which a layer is stored as references to objects and inline bytes (Repo-Format.md, "Streams").
//
// The module reads from a `RandomAccessBytes` and writes to a closure. It knows neither tar nor the repository, which stores the objects.
//
// - `SplitStreamWriter` produces a stream; `SplitStreamReader` reads one, in the current layout and in the old one.
// - `NamedReference` is a name for another object; `StreamContentType` says what a stream contains.
