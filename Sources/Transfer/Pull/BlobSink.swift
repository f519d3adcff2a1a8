/// Takes a blob's bytes as they come, still compressed, on their way to the decompressor: all of them, in order, each once.
///
/// Nothing is verified at that time. Whoever made the sink keeps or drops what it took, after the import has succeeded or failed; an import
/// that is tried again gets a sink of its own.
protocol BlobSink: AnyObject {
    func append(_ bytes: UnsafeRawBufferPointer) throws
}
