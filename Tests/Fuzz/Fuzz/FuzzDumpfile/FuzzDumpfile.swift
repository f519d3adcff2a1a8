import ComposefsBytes
import ComposefsDumpfile
import ComposefsEROFS
import ComposefsFileTree

/// An accepted dumpfile is written to one that parses to the same tree, and is converted to images of all formats.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let data = UnsafeRawBufferPointer(start: start, count: count)
    guard let tree = try? parseDumpfile(data) else { return 0 }
    let text = dumpfile(of: tree)
    do {
        let again = dumpfile(of: try parseDumpfile(text))
        precondition(again == text, "another tree after writing")
    } catch {
        preconditionFailure("cannot read what it wrote: \(error)")
    }
    for version in ErofsVersion.allCases {
        guard let bytes = try? writeErofs(tree, version: version) else { continue }
        guard let image = try? ErofsImage(bytes) else { preconditionFailure("cannot open what it wrote") }
        // Not every tree is preserved: names of overlayfs's own xattrs and hex-named whiteouts of the root are not. Reading must succeed or fail
        // nevertheless, and the result must be stable.
        guard let read = try? image.tree(), let second = try? writeErofs(read, version: version) else { continue }
        guard let secondImage = try? ErofsImage(second), let secondTree = try? secondImage.tree() else {
            preconditionFailure("cannot read what it wrote from what it read")
        }
        precondition(dumpfile(of: secondTree) == dumpfile(of: read), "reading and writing is not stable")
    }
    return 0
}
