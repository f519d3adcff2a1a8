import ComposefsBytes
import ComposefsCompression

/// The first byte selects the buffer size; the rest is decompressed as gzip, zstd or by its magic number.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    guard let start, count > 0 else { return 0 }
    let data = UnsafeRawBufferPointer(start: start + 1, count: count - 1)
    let chunk = Int(start[0]) + 1
    var decompressor = Decompressor(CompressionFormat.detect(data))
    let output = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 16)
    defer { output.deallocate() }
    var offset = 0
    do {
        while offset < data.count {
            var input = UnsafeRawBufferPointer(rebasing: data[offset..<min(offset + chunk, data.count)])
            let before = input.count
            while decompressor.produced < 1 << 22, try decompressor.decompress(&input, into: output) > 0 {}
            if decompressor.produced >= 1 << 22 { return 0 }
            offset += before
        }
        try decompressor.finish()
    } catch {
        _ = "\(error)"
    }
    return 0
}
