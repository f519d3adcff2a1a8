import ComposefsJSON
import ComposefsSnapshotFormat

/// `snapshot.json`: no trap, errors of one line. An accepted descriptor has one canonical form, which has its identity and is accepted itself.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeRawBufferPointer(start: start, count: count))
    do throws(SnapshotFormatError) {
        let descriptor = try SnapshotDescriptor(parsing: bytes)
        let canonical = descriptor.canonicalBytes
        do throws(SnapshotFormatError) {
            let again = try SnapshotDescriptor(parsing: canonical)
            precondition(again == descriptor && again.canonicalBytes == canonical, "another descriptor")
            precondition(again.identity == descriptor.identity, "another identity")
        } catch {
            fatalError("the canonical form is refused: \(error)")
        }
        guard let document = try? JSONValue.parse(canonical) else { fatalError("the canonical form is not JSON") }
        precondition(document.compactBytes == canonical, "white space")
    } catch {
        precondition(!"\(error)".utf8.isEmpty)
    }
    return 0
}
