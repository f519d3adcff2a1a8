import ComposefsBytes

/// An archive's path, taken apart: components without empty ones and `.`.
struct EntryPath {
    enum Role {
        /// The root directory itself.
        case root
        case entry(name: ByteString)
        /// Hides `name` of the layers below.
        case whiteout(name: ByteString)
        /// Hides everything that the layers below have in the directory.
        case opaque
    }

    var parents: [ArraySlice<UInt8>]
    var role: Role

    /// Bytes of one name, as Linux and EROFS have it.
    static let nameLimit = 255
    static let whiteoutPrefix: ByteString = ".wh."
    static let opaqueName: ByteString = ".wh..wh..opq"

    /// - Returns: nil and the reason where the path climbs out, has an impossible name, or lies below a whiteout.
    static func parse(_ path: ByteString, honouringWhiteouts: Bool = true) -> Result<EntryPath, Refusal> {
        var components: [ArraySlice<UInt8>] = []
        for component in path.bytes.split(separator: UInt8(ascii: "/")) {
            if component.elementsEqual([UInt8(ascii: ".")]) { continue }
            if component.elementsEqual([UInt8(ascii: "."), UInt8(ascii: ".")]) { return .failure(Refusal("its path holds \"..\"")) }
            if component.contains(0) { return .failure(Refusal("its path holds a NUL byte")) }
            if component.count > nameLimit {
                return .failure(Refusal("a name in its path is \(component.count) bytes long; 255 are possible"))
            }
            if components.count > LayerMerger.depthLimit {
                return .failure(Refusal("directories are nested deeper than \(LayerMerger.depthLimit)"))
            }
            components.append(component)
        }
        guard let last = components.popLast() else { return .success(EntryPath(parents: [], role: .root)) }
        guard honouringWhiteouts else {
            return .success(EntryPath(parents: components, role: .entry(name: ByteString(Array(last)))))
        }
        if components.contains(where: { $0.starts(with: whiteoutPrefix.bytes) }) {
            return .failure(Refusal("it lies below a whiteout"))
        }
        let name = ByteString(Array(last))
        guard name.hasPrefix(whiteoutPrefix) else { return .success(EntryPath(parents: components, role: .entry(name: name))) }
        if name == opaqueName { return .success(EntryPath(parents: components, role: .opaque)) }
        let hidden = ByteString(Array(name.bytes.dropFirst(whiteoutPrefix.count)))
        if hidden.isEmpty || hidden == "." || hidden == ".." { return .failure(Refusal("it is a whiteout of no possible name")) }
        return .success(EntryPath(parents: components, role: .whiteout(name: hidden)))
    }

    struct Refusal: Error {
        var reason: String
        init(_ reason: String) { self.reason = reason }
    }
}
