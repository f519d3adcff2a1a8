import ComposefsBytes
import ComposefsDumpfile
import ComposefsEROFS
import ComposefsFileTree
import Glibc

/// Any bytes: no trap, no hang. An accepted image can be written again and gives the same tree.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeRawBufferPointer(start: start, count: count))
    do {
        let image = try ErofsImage(bytes)
        do { try image.checkMetadata() } catch { _ = "\(error)" }
        _ = image.objectReferences()
        let tree = try image.tree()
        let text = dumpfile(of: tree)
        for version in ErofsVersion.allCases {
            guard let written = try? writeErofs(tree, version: version), let second = try? ErofsImage(written).tree() else { continue }
            if version != .v2 { precondition(dumpfile(of: second) == text, "another tree after writing") }
        }
    } catch {
        _ = "\(error)"
    }
    return 0
}

/// If FUZZ_SEEDS names a folder, writes seeds instead of fuzzing: images of all formats from the dumpfiles in FUZZ_DUMPFILES.
@_cdecl("LLVMFuzzerInitialize")
public func initialize(_ count: UnsafeMutablePointer<CInt>?, _ arguments: UnsafeMutableRawPointer?) -> CInt {
    guard let folder = getenv("FUZZ_SEEDS"), let list = getenv("FUZZ_DUMPFILES") else { return 0 }
    for (index, path) in String(cString: list).split(separator: ":").enumerated() {
        guard let tree = try? parseDumpfile(contents(of: String(path))) else { continue }
        for version in ErofsVersion.allCases {
            guard let image = try? writeErofs(tree, version: version),
                let file = fopen(String(cString: folder) + "/dump-\(index)-v\(version.rawValue)", "w")
            else { continue }
            fwrite(image, 1, image.count, file)
            fclose(file)
        }
    }
    exit(0)
}

private func contents(of path: String) -> [UInt8] {
    guard let file = fopen(path, "r") else { return [] }
    defer { fclose(file) }
    let limit = 1 << 20
    return [UInt8](unsafeUninitializedCapacity: limit) { buffer, count in count = fread(buffer.baseAddress, 1, limit, file) }
}
