import ComposefsBytes
import ComposefsRegistry

/// registries.conf, and so the TOML parser.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeRawBufferPointer(start: start, count: count))
    do { try checkRegistriesFile(bytes) } catch {
        precondition("\(error)".utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7f }, "a message of more than one line")
    }
    return 0
}
