import ComposefsBytes

/// An archive's path, checked: its parent directories and the meaning of its last component. Empty components and `.` are ignored.
struct EntryPath {
    enum Role {
        /// The root directory itself.
        case root
        case entry(name: ByteString)
        /// Hides `name` of the lower layers.
        case whiteout(name: ByteString)
        /// Hides all entries that the lower layers have in the directory.
        case opaque
        /// Internal data of aufs, no part of the image.
        case ignored
    }

    /// The path as it is in the archive.
    var path: ByteString
    /// The bytes before the last component.
    var parentsEnd: Int
    /// The number of components before the last one.
    var depth: Int
    var role: Role

    var parents: ArraySlice<UInt8> { path.bytes[..<parentsEnd] }

    /// The longest name in Linux and EROFS, in bytes.
    static let nameLimit = 255
    static let whiteoutPrefix: ByteString = ".wh."
    static let opaqueName: ByteString = ".wh..wh..opq"
    /// The prefix of names that aufs uses internally.
    static let aufsPrefix: ByteString = ".wh..wh."
    /// The directory of aufs for files with several names, in the root: links of the same layer lead into it, but it is no part of the
    /// image.
    static let linkFarm: ByteString = ".wh..wh.plnk"

    /// - Returns: a refusal with the reason if the path leaves the root, has an impossible name, or lies below a whiteout.
    static func parse(_ path: ByteString, honouringWhiteouts: Bool = true) -> Result<EntryPath, Refusal> {
        let bytes = path.bytes
        var last = 0..<0
        var count = 0
        var isInFarm = false
        var isIgnored = false
        var isBelowWhiteout = false
        var at = 0
        while at < bytes.count {
            if bytes[at] == UInt8(ascii: "/") {
                at += 1
                continue
            }
            let start = at
            while at < bytes.count, bytes[at] != UInt8(ascii: "/") { at += 1 }
            let component = bytes[start..<at]
            let dots = component.count <= 2 && component.allSatisfy { $0 == UInt8(ascii: ".") }
            if dots, component.count == 1 { continue }
            if dots { return .failure(Refusal("its path holds \"..\"")) }
            if component.contains(0) { return .failure(Refusal("its path holds a NUL byte")) }
            if component.count > nameLimit {
                return .failure(Refusal("a name in its path is \(component.count) bytes long; 255 are possible"))
            }
            if count > LayerMerger.depthLimit {
                return .failure(Refusal("directories are nested deeper than \(LayerMerger.depthLimit)"))
            }
            if honouringWhiteouts, !last.isEmpty, !isInFarm, bytes[last].starts(with: whiteoutPrefix.bytes) {
                if isAufs(bytes[last]) { isIgnored = true } else { isBelowWhiteout = true }
            }
            last = start..<at
            count += 1
            if count == 1, component.elementsEqual(linkFarm.bytes) { isInFarm = true }
        }
        var result = EntryPath(path: path, parentsEnd: last.lowerBound, depth: max(count - 1, 0), role: .root)
        guard count > 0 else { return .success(result) }
        let name = ByteString(bytes[last])
        if isBelowWhiteout { return .failure(Refusal("it lies below a whiteout")) }
        if isIgnored || (honouringWhiteouts && !isInFarm && isAufs(bytes[last])) {
            result.role = .ignored
        } else if !honouringWhiteouts || isInFarm || !name.hasPrefix(whiteoutPrefix) {
            result.role = .entry(name: name)
        } else if name == opaqueName {
            result.role = .opaque
        } else {
            let hidden = ByteString(name.bytes.dropFirst(whiteoutPrefix.count))
            if hidden.isEmpty || hidden == "." || hidden == ".." { return .failure(Refusal("it is a whiteout of no possible name")) }
            result.role = .whiteout(name: hidden)
        }
        return .success(result)
    }

    private static func isAufs(_ name: ArraySlice<UInt8>) -> Bool {
        name.starts(with: aufsPrefix.bytes) && !name.elementsEqual(opaqueName.bytes)
    }

    struct Refusal: Error {
        var reason: String
        init(_ reason: String) { self.reason = reason }
    }
}
