import ComposefsBytes
import ComposefsTar

/// The results of a parse, so that two parses can be compared.
struct Record: TarHandler, Equatable {
    var inlineBytes: [UInt8] = []
    var entries: [String] = []
    var externalBytes = 0
    var open = false

    mutating func inline(_ bytes: UnsafeRawBufferPointer) { inlineBytes.append(contentsOf: bytes) }

    mutating func entry(_ entry: TarEntry, _ content: TarContent) {
        precondition(!open, "an entry before the end of the last one's content")
        var text = "\(entry.path) \(entry.linkTarget) \(entry.kind) \(entry.mode) \(entry.uid) \(entry.gid) \(entry.mtime)"
        text += " \(entry.size) \(entry.deviceMajor) \(entry.deviceMinor) \(entry.headerOffset)"
        for attribute in entry.extendedAttributes { text += " \(attribute.name)=\(attribute.value)" }
        switch content {
        case .none: break
        case .inline(let bytes): precondition(bytes.bytes.count <= 64, "a large file in line")
        case .external(let size):
            precondition(size > 64, "a small file as object")
            open = true
        }
        entries.append(text + " \(content)")
    }

    mutating func external(_ bytes: UnsafeRawBufferPointer, isLast: Bool) {
        precondition(open, "content without an entry")
        externalBytes += bytes.count
        if isLast { open = false }
    }
}

private func parse(_ data: UnsafeRawBufferPointer, chunk: Int) -> (Record, String?) {
    var record = Record()
    var parser = TarParser()
    do {
        var offset = 0
        while offset < data.count {
            let end = min(offset + chunk, data.count)
            try parser.feed(UnsafeRawBufferPointer(rebasing: data[offset..<end]), to: &record)
            offset = end
        }
        try parser.finish()
    } catch {
        return (record, "\(error)")
    }
    return (record, nil)
}

/// The first byte selects the buffer size. Parsing in parts and as a whole gives the same entries, bytes and errors; no byte is lost.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    guard let start, count > 0 else { return 0 }
    let data = UnsafeRawBufferPointer(start: start + 1, count: count - 1)
    let (whole, wholeError) = parse(data, chunk: max(data.count, 1))
    let (chunks, chunksError) = parse(data, chunk: Int(start[0]) * 3 + 1)
    precondition(wholeError == chunksError, "\(wholeError ?? "no error") in one chunk, \(chunksError ?? "none") in several")
    if wholeError == nil {
        precondition(whole == chunks, "entries depend on the chunks")
        precondition(whole.inlineBytes.count + whole.externalBytes == data.count, "bytes were lost")
    }
    return 0
}
