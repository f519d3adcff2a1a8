import ComposefsBytes
import ComposefsFileTree

/// A walk from the root along a path: its position, the directories on the way, and the remaining components.
struct PathWalk {
    /// The number of symbolic links that the kernel follows in one path.
    static let linkLimit = 40
    /// Components that the links of one path may add. The kernel has no such limit, but one short entry must not cost 80,000 look-ups.
    static let linkedNameLimit = 1024

    enum Refusal { case tooManyLinks, tooLongLinks }

    /// Directories from the root to the current one.
    private(set) var trail: [FileTree.InodeID] = [FileTree.root]
    /// Their names, without the root.
    private var names: [ArraySlice<UInt8>] = []
    /// The remaining components, the next one last: of the path, and of the targets of its links.
    private var pending: [ArraySlice<UInt8>]
    private(set) var links = 0
    private var linkedNames = 0

    init(_ path: ArraySlice<UInt8>) { pending = [path] }

    var here: FileTree.InodeID { trail[trail.count - 1] }
    /// The root's is 0.
    var depth: Int { trail.count - 1 }

    /// The next name that is not `.` or `..`, which are followed at once. Only a link's target contains them; the root's parent is the
    /// root.
    mutating func next() -> ArraySlice<UInt8>? {
        let slash = UInt8(ascii: "/")
        let dot = UInt8(ascii: ".")
        while var rest = pending.popLast() {
            while rest.first == slash { rest.removeFirst() }
            if rest.isEmpty { continue }
            let name = rest.prefix { $0 != slash }
            rest = rest[name.endIndex...]
            if !rest.isEmpty { pending.append(rest) }
            if name.count == 1, name.first == dot { continue }
            if name.count == 2, name.first == dot, name.last == dot {
                if depth > 0 {
                    trail.removeLast()
                    names.removeLast()
                }
                continue
            }
            return name
        }
        return nil
    }

    mutating func enter(_ directory: FileTree.InodeID, _ name: ArraySlice<UInt8>) {
        trail.append(directory)
        names.append(name)
    }

    /// Continues at the target of a symbolic link.
    mutating func follow(_ target: ByteString) -> Refusal? {
        links += 1
        guard links <= Self.linkLimit else { return .tooManyLinks }
        let slash = UInt8(ascii: "/")
        linkedNames += target.bytes.split(separator: slash).count
        guard linkedNames <= Self.linkedNameLimit else { return .tooLongLinks }
        if target.bytes.first == slash {
            trail = [FileTree.root]
            names = []
        }
        pending.append(target.bytes[...])
        return nil
    }

    /// The path of a name in the current directory, joined by slashes.
    func path(of name: ArraySlice<UInt8>) -> ByteString {
        var path: [UInt8] = []
        for part in names {
            path += part
            path.append(UInt8(ascii: "/"))
        }
        return ByteString(path + name)
    }
}
