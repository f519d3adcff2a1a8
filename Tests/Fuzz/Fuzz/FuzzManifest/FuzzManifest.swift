import ComposefsBytes
import ComposefsOCIModel

/// Any document as a manifest, an index, a config, and by its own media type: no trap, the same result twice, printable errors.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeRawBufferPointer(start: start, count: count))
    var first: ManifestDocument?
    do { first = try ManifestDocument(parsing: bytes, mediaType: nil) } catch { _ = "\(error)" }
    precondition(first == (try? ManifestDocument(parsing: bytes, mediaType: nil)), "two answers for one document")
    for type in [MediaType.ociManifest, MediaType.ociIndex, MediaType.dockerManifest, MediaType.dockerManifestList] {
        do { _ = try ManifestDocument(parsing: bytes, mediaType: type) } catch { _ = "\(error)" }
    }
    let isManifest = (try? Manifest(parsing: bytes)) != nil
    let isIndex = (try? ImageIndex(parsing: bytes)) != nil
    precondition(!(isManifest && isIndex), "a manifest and an index at once")
    do { _ = try ImageConfig(parsing: bytes) } catch { _ = "\(error)" }
    return 0
}
