import ComposefsBytes
import ComposefsFileTree
import ComposefsHashing

/// The part of an image's SELinux policy that labels files.
struct SelinuxPolicy {
    var contexts = FileContexts()
    /// Paths that are labelled like other paths.
    private(set) var aliases: [ByteString: ByteString] = [:]

    /// Nil if the tree has no policy: no `/etc/selinux/config`, or one that names no type.
    init?(of tree: FileTree, content: (ObjectID) throws -> [UInt8]) throws(BootTransformError) {
        let top: ByteString = "/etc/selinux"
        guard let configuration = try Self.read(top + "/config", tree, content), let type = Self.policyType(configuration) else {
            return nil
        }
        guard !type.isEmpty, type != ".", type != "..", !type.bytes.contains(slash) else {
            throw .policy(path: top + "/config", .invalidType(type))
        }
        let files = top + "/" + type + "/contexts/files"
        for suffix in ["", ".local", ".homedirs"] as [ByteString] {
            let path = files + "/file_contexts" + suffix
            if let bytes = try Self.read(path, tree, content) {
                try contexts.add(bytes, path: path)
            } else if suffix.isEmpty {
                throw .policy(path: path, .missing(policy: type))
            }
        }
        contexts.makeIndex()
        // Of two lines for one path the later one applies, here too.
        for suffix in [".subs", ".subs_dist"] as [ByteString] {
            let path = files + "/file_contexts" + suffix
            if let bytes = try Self.read(path, tree, content) { try addAliases(bytes, path) }
        }
    }

    private mutating func addAliases(_ bytes: [UInt8], _ path: ByteString) throws(BootTransformError) {
        try forEachLine(of: bytes, path) { (fields, line) throws(BootTransformError) in
            guard fields.count > 1 else { throw .policyLine(path: path, line: line, .aliasWithoutPath) }
            guard fields.count == 2 else { throw .policyLine(path: path, line: line, .textAfterAlias) }
            guard aliases.count < BootLimits.aliases else {
                throw .policyLine(path: path, line: line, .tooManyAliases(limit: BootLimits.aliases))
            }
            aliases[ByteString(fields[0])] = ByteString(fields[1])
        }
    }

    /// The value of the first line `SELINUXTYPE=…`, whatever its case.
    static func policyType(_ configuration: [UInt8]) -> ByteString? {
        for line in configuration.split(separator: UInt8(ascii: "\n")) {
            guard let equals = line.firstIndex(of: UInt8(ascii: "=")) else { continue }
            let key = trimmingASCIISpace(line[..<equals]).map { (0x61...0x7a).contains($0) ? $0 - 0x20 : $0 }
            if key.elementsEqual("SELINUXTYPE".utf8) { return ByteString(trimmingASCIISpace(line[(equals + 1)...])) }
        }
        return nil
    }

    /// The content of a file; nil if there is none. Directories on its path must not be symbolic links: the digests of images would depend
    /// on how they are resolved.
    private static func read(
        _ path: ByteString, _ tree: FileTree, _ content: (ObjectID) throws -> [UInt8]
    ) throws(BootTransformError) -> [UInt8]? {
        var at = FileTree.root
        var walked: ByteString = ""
        for name in path.bytes.split(separator: slash) {
            guard tree.isDirectory(at) else { throw .notADirectory(walked) }
            guard let next = tree.lookup(ByteString(name), in: at) else { return nil }
            at = next
            walked = walked + "/" + ByteString(name)
        }
        switch tree.content(of: at) {
        case .inline(let bytes): return bytes.bytes
        // A hole has no lines.
        case .sparse: return nil
        case .external(let id, let size), .externalWithoutVerity(let id, let size):
            guard size <= UInt64(BootLimits.policyFileBytes) else {
                throw .policy(path: path, .tooLarge(size: size, limit: BootLimits.policyFileBytes))
            }
            do {
                return try content(id)
            } catch {
                if let error = error as? BootTransformError { throw error }
                throw .policy(path: path, .unreadable("\(error)"))
            }
        default: throw .policy(path: path, .notRegularFile)
        }
    }
}
