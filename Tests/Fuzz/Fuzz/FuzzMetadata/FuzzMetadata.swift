import ComposefsBytes
import ComposefsRepository

/// An accepted meta.json is written to an equivalent one.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeRawBufferPointer(start: start, count: count))
    do {
        let metadata = try RepositoryMetadata(parsing: bytes)
        let text = metadata.serialized()
        guard let again = try? RepositoryMetadata(parsing: text) else { preconditionFailure("cannot read what it wrote") }
        precondition(again.formats == metadata.formats && again.algorithm == metadata.algorithm, "another meaning after writing")
        precondition(again.serialized() == text, "writing is not stable")
    } catch {
        _ = "\(error)"
    }
    return 0
}
