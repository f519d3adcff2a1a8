import ComposefsBytes
import ComposefsJSON

/// An accepted document is written, in both forms, to one that parses to the same value.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let data = UnsafeRawBufferPointer(start: start, count: count)
    do {
        let value = try JSONValue.parse(data)
        for pretty in [false, true] {
            let text = value.serialized(pretty: pretty)
            guard let again = try? JSONValue.parse(text) else { preconditionFailure("cannot read what it wrote") }
            precondition(again == value && again.serialized(pretty: pretty) == text, "another value after writing")
        }
    } catch {
        precondition(error.offset >= 0 && error.offset <= count, "an error outside the text")
        _ = "\(error)"
    }
    return 0
}
