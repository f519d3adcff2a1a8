import ComposefsBytes
import ComposefsCompression
import ComposefsHashing
import ComposefsSplitStream

/// Reads a whole stream: no trap, no endless body, printable errors. Returns the inline bytes and the number of objects.
private func read(_ file: [UInt8], _ algorithm: VerityAlgorithm) throws -> (inline: Int, objects: Int) {
    var reader = try SplitStreamReader(file, algorithm: algorithm)
    for reference in reader.namedReferences { _ = reference.name.utf8.count + reference.id.hex.utf8.count }
    var inline = 0
    var objects = 0
    while inline < 1 << 24, let chunk = try reader.next() {
        switch chunk {
        case .inline(let bytes):
            precondition(bytes.count > 0 && bytes.count <= 128 << 10, "a chunk of \(bytes.count) bytes")
            inline += bytes.count
        case .external: objects += 1
        }
    }
    return (inline, objects)
}

/// A valid file with a body of any instructions, so that the fuzzer need not find valid zstd frames.
private func file(around body: UnsafeRawBufferPointer, _ algorithm: VerityAlgorithm) -> [UInt8] {
    var compressor = ZstdCompressor(level: 1)
    var frame: [UInt8] = []
    compressor.compress(body, into: &frame)
    compressor.finish(into: &frame)
    let names: [UInt8] = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00]
    let table = [UInt8](repeating: 7, count: 2 * algorithm.digestSize)
    let bodyStart = 112 + table.count + names.count
    var writer = ByteWriter()
    writer.append(Array("SplitStream".utf8))
    writer.append([0, 0, 0, algorithm.rawValue, 12])
    for value in [32, 112, 112, 112, 112, 112 + table.count, bodyStart, bodyStart + frame.count, 112 + table.count, bodyStart, 0, 0] {
        writer.u64(UInt64(value))
    }
    writer.append(table)
    writer.append(names)
    writer.append(frame)
    return writer.bytes
}

/// In the first byte, bit 0 selects whether the rest is a file or a body, and bit 1 the algorithm.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    guard let start, count > 0 else { return 0 }
    let data = UnsafeRawBufferPointer(start: start + 1, count: count - 1)
    let algorithm: VerityAlgorithm = start[0] & 2 == 0 ? .sha256 : .sha512
    do {
        if start[0] & 1 == 0 {
            _ = try read(Array(data), algorithm)
        } else {
            let found = try read(file(around: data, algorithm), algorithm)
            precondition(found.inline + 8 * found.objects <= data.count, "more came out than went in")
        }
    } catch {
        _ = "\(error)"
    }
    return 0
}
