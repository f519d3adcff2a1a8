import ComposefsBytes
import ComposefsOCIModel
import ComposefsTransports

/// Any text as an image reference: no trap; the canonical form of a registry reference is equivalent.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let text = String(decoding: UnsafeRawBufferPointer(start: start, count: count), as: UTF8.self)
    do { _ = try parseReference(text) } catch { _ = "\(error)" }
    do { _ = try Platform(parsing: text) } catch { _ = "\(error)" }
    guard let reference = try? RegistryReference(parsing: text) else { return 0 }
    guard let again = try? RegistryReference(parsing: reference.canonical) else { preconditionFailure("cannot read what it wrote") }
    precondition(again.canonical == reference.canonical && again.digest == reference.digest, "another meaning after writing")
    return 0
}
