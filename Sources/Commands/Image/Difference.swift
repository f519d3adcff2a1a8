import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsFileTree
import ComposefsJSON
import ComposefsOCI

struct Difference: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "diff", abstract: "Show which files two images have in common, and which not.",
        discussion: """
            A is a file that only the second image has, D one that only the first has, and C one that both have and that differs: in its type, \
            content, mode, owner, xattrs or, with --times, in its time. Contents are compared by the identifiers of their objects: no file is \
            read. After the command's name, -q prints paths only.
            """)

    @Argument(help: "The first image.", completion: .imageName)
    var image: ByteString

    @Argument(help: "The second image.", completion: .imageName)
    var other: ByteString

    @Flag(help: "Also show files of which only the time differs.")
    var times = false

    @OptionGroup var form: FormatOptions

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func validate() throws { _ = try fields() }

    private func fields() throws -> [String]? { try form.fields(of: DifferenceReport.fields, json: json) }

    func run() throws {
        let images = try global.openStore(Self.rights, readOnly: true).images
        let (first, second) = (try images.tree(ofImage: image), try images.tree(ofImage: other))
        let report = DifferenceReport(entries: TreeDifference.between(first, second, withTimes: times))
        if let fields = try fields() { return try FormatOptions.show(fields, report.entries.map(\.json)) }
        if global.printsNamesOnly, !json { return try FormatOptions.show(["path"], report.entries.map(\.json)) }
        try report.show(asJSON: json)
    }
}

private struct DifferenceReport: CommandReport {
    static let fields = ["change", "path", "type", "size", "differences"]

    var entries: [TreeDifference.Entry]

    var lines: [String] {
        entries.map { entry in
            let what = entry.differences.isEmpty ? "" : " (\(entry.differences.map(\.rawValue).joined(separator: ", ")))"
            return "\(entry.change.letter) \(Output.printable(entry.path))" + what
        }
    }

    var json: JSONValue {
        func all(_ change: TreeDifference.Change) -> JSONValue { .array(entries.filter { $0.change == change }.map(\.json)) }
        return ["added": all(.added), "removed": all(.removed), "changed": all(.changed)]
    }
}

extension TreeDifference.Change {
    fileprivate var letter: String {
        switch self {
        case .added: "A"
        case .removed: "D"
        case .changed: "C"
        }
    }
}

extension TreeDifference.Entry {
    /// Type and size are those of the second image, or of the first if only that has the file.
    fileprivate var json: JSONValue {
        [
            "change": .string(change.rawValue), "path": .string(path.jsonText), "type": .string(kind.name), "size": JSONValue(size),
            "differences": .array(differences.map { .string($0.rawValue) }),
        ]
    }
}

extension FileTree.Kind {
    fileprivate var name: String {
        switch self {
        case .regular: "file"
        case .directory: "directory"
        case .characterDevice: "character-device"
        case .blockDevice: "block-device"
        case .fifo: "fifo"
        case .socket: "socket"
        case .symbolicLink: "symlink"
        }
    }
}

/// What differs between two trees. No content is read: files with the same object have the same content, and others do not.
enum TreeDifference {
    enum Change: String { case added, removed, changed }

    enum Aspect: String { case type, content, mode, owner, xattrs, time }

    struct Entry {
        var change: Change
        /// Absolute.
        var path: ByteString
        var kind: FileTree.Kind
        var size: UInt64
        /// What differs, for a file that both trees have.
        var differences: [Aspect] = []
    }

    /// The differences, sorted by path within each directory; a directory precedes its entries.
    static func between(_ first: FileTree, _ second: FileTree, withTimes: Bool) -> [Entry] {
        var found: [Entry] = []
        // A list instead of recursion: images decide how deep trees are.
        var pending: [(path: ByteString, first: FileTree.InodeID?, second: FileTree.InodeID?)] = [("/", FileTree.root, FileTree.root)]
        while let (path, left, right) = pending.popLast() {
            if let entry = compare(path, left.map { (first, $0) }, right.map { (second, $0) }, withTimes) { found.append(entry) }
            let leftEntries = left.map { entries(of: $0, in: first) } ?? []
            let rightEntries = right.map { entries(of: $0, in: second) } ?? []
            let prefix = path == "/" ? path : path + "/"
            var below: [(path: ByteString, first: FileTree.InodeID?, second: FileTree.InodeID?)] = []
            var (i, j) = (0, 0)
            while i < leftEntries.count || j < rightEntries.count {
                let order =
                    j == rightEntries.count ? -1 : i == leftEntries.count ? 1 : compareNames(leftEntries[i].name, rightEntries[j].name)
                below.append(
                    (
                        prefix + (order <= 0 ? leftEntries[i].name : rightEntries[j].name), order <= 0 ? leftEntries[i].inode : nil,
                        order >= 0 ? rightEntries[j].inode : nil
                    ))
                if order <= 0 { i += 1 }
                if order >= 0 { j += 1 }
            }
            pending += below.reversed()
        }
        return found
    }

    private static func compareNames(_ left: ByteString, _ right: ByteString) -> Int { left == right ? 0 : left < right ? -1 : 1 }

    private static func entries(of inode: FileTree.InodeID, in tree: FileTree) -> [(name: ByteString, inode: FileTree.InodeID)] {
        guard tree.isDirectory(inode) else { return [] }
        return tree.entries(of: inode).map { (tree.name(of: $0), tree.inode(of: $0)) }.sorted { $0.0 < $1.0 }
    }

    private static func compare(
        _ path: ByteString, _ left: (tree: FileTree, inode: FileTree.InodeID)?, _ right: (tree: FileTree, inode: FileTree.InodeID)?,
        _ withTimes: Bool
    ) -> Entry? {
        guard let (tree, inode) = right ?? left else { return nil }
        let entry = Entry(
            change: left == nil ? .added : right == nil ? .removed : .changed, path: path, kind: tree.kind(of: inode),
            size: size(of: tree.content(of: inode)))
        guard let left, let right else { return entry }
        var aspects: [Aspect] = []
        let (old, new) = (left.tree, right.tree)
        if old.kind(of: left.inode) != new.kind(of: right.inode) {
            aspects.append(.type)
        } else if old.content(of: left.inode) != new.content(of: right.inode) {
            aspects.append(.content)
        }
        if old.permissions(of: left.inode) != new.permissions(of: right.inode) { aspects.append(.mode) }
        if old.uid(of: left.inode) != new.uid(of: right.inode) || old.gid(of: left.inode) != new.gid(of: right.inode) {
            aspects.append(.owner)
        }
        if Set(old.extendedAttributes(of: left.inode)) != Set(new.extendedAttributes(of: right.inode)) { aspects.append(.xattrs) }
        if withTimes, old.modified(of: left.inode) != new.modified(of: right.inode) { aspects.append(.time) }
        guard !aspects.isEmpty else { return nil }
        var changed = entry
        changed.differences = aspects
        return changed
    }

    private static func size(of content: Content?) -> UInt64 {
        switch content {
        case .inline(let bytes): UInt64(bytes.count)
        case .external(_, let size), .externalWithoutVerity(_, let size), .sparse(let size): size
        case .symbolicLink(let target): UInt64(target.count)
        default: 0
        }
    }
}
