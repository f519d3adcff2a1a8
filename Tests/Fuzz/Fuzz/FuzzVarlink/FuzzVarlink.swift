import ComposefsBytes
import ComposefsJSON
import ComposefsVarlink

/// Messages and layer streams are the same however their bytes arrive, and an accepted call is written to one that parses to the same call.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let data = UnsafeRawBufferPointer(start: start, count: count)
    let whole = messages(data, pieces: max(1, count))
    precondition(whole == messages(data, pieces: 1 + count / 7), "other messages in pieces")
    for message in whole {
        guard let call = try? VarlinkCall(parsing: message) else { continue }
        guard let again = try? VarlinkCall(parsing: call.message.dropLast()) else { preconditionFailure("cannot read what it wrote") }
        precondition(again == call, "another call after writing")
        var reader = ParameterReader(call.parameters)
        _ = try? reader.optionalString("a")
        _ = try? reader.objects("b").first?.finish()
        try? reader.finish()
    }
    precondition(chunks(data, pieces: max(1, count)) == chunks(data, pieces: 1 + count / 5), "other chunks in pieces")
    if let address = try? VarlinkAddress(parsing: ByteString(data)) { precondition(address.mode <= 0o777 && !address.path.isEmpty) }
    return 0
}

private func forEachPiece(_ data: UnsafeRawBufferPointer, _ size: Int, _ body: (UnsafeRawBufferPointer) -> Bool) {
    var at = 0
    while at < data.count {
        let end = min(data.count, at + size)
        guard body(UnsafeRawBufferPointer(rebasing: data[at..<end])) else { return }
        at = end
    }
}

private func messages(_ data: UnsafeRawBufferPointer, pieces size: Int) -> [[UInt8]] {
    var reader = FrameReader(limit: 1 << 12)
    var found: [[UInt8]] = []
    forEachPiece(data, size) { piece in
        reader.append(piece)
        do {
            while let message = try reader.next() { found.append(message) }
            return true
        } catch {
            return false
        }
    }
    return found
}

private func chunks(_ data: UnsafeRawBufferPointer, pieces size: Int) -> [String] {
    var reader = DirectoryStreamReader()
    var found: [String] = []
    var content: [UInt8] = []
    var isRefused = false
    forEachPiece(data, size) { piece in
        reader.append(piece)
        do {
            while true {
                withUnsafeTemporaryAllocation(byteCount: 64, alignment: 1) { buffer in
                    while true {
                        let taken = reader.takeBytes(into: buffer)
                        if taken == 0 { break }
                        content.append(contentsOf: buffer[..<taken])
                    }
                }
                guard reader.pending == 0, let chunk = try reader.next() else { return true }
                found.append("\(chunk)")
            }
        } catch {
            isRefused = true
            found.append("\(error)")
            return false
        }
    }
    if !isRefused { found.append((try? reader.finish()) == nil ? "truncated" : "complete") }
    return found + ["\(content)"]
}
