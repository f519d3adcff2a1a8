public import ComposefsBytes
internal import ComposefsLinuxSystem

/// A reference: a name below `refs/` that keeps a stream or an image.
public struct Reference: Hashable, Sendable {
    /// Relative to the requested prefix; components are separated by `/`.
    public var name: ByteString
    /// The link's target, unchanged.
    public var target: ByteString

    public init(name: ByteString, target: ByteString) {
        self.name = name
        self.target = target
    }

    /// The stream's or image's name: the target's last component, as garbage collection reads it.
    public var entry: ByteString { Layout.baseName(target) }
}

extension Repository {
    /// A name as one path component: `%` becomes `%25`, `/` becomes `%2F`.
    package static func component(encoding name: ByteString) -> ByteString {
        var encoded: [UInt8] = []
        encoded.reserveCapacity(name.count)
        for byte in name.bytes {
            switch byte {
            case UInt8(ascii: "%"): encoded += Array("%25".utf8)
            case UInt8(ascii: "/"): encoded += Array("%2F".utf8)
            default: encoded.append(byte)
            }
        }
        return ByteString(encoded)
    }

    /// All references below `streams/refs/<prefix>`, in ascending byte order of their names. Names are as they are on disk; the module
    /// ImageStore encodes and decodes tags.
    public func streamReferences(under prefix: ByteString = "") throws(RepositoryError) -> [Reference] {
        try references(Layout.streamReferences, under: prefix)
    }

    /// All references below `images/refs/<prefix>`.
    public func imageReferences(under prefix: ByteString = "") throws(RepositoryError) -> [Reference] {
        try references(Layout.imageReferences, under: prefix)
    }

    /// The target of one reference; nil if there is none.
    public func streamReference(_ name: ByteString) throws(RepositoryError) -> Reference? {
        try reference(Layout.streamReferences, name)
    }

    public func imageReference(_ name: ByteString) throws(RepositoryError) -> Reference? {
        try reference(Layout.imageReferences, name)
    }

    /// Removes a reference, durably. Returns false if there was none. What it kept stays until garbage is collected.
    @discardableResult
    public func removeStreamReference(_ name: ByteString) throws(RepositoryError) -> Bool {
        try removeReference(Layout.streamReferences, name)
    }

    /// The same. If there is none, its absence is made durable: a program that removed it may have been killed before its sync.
    package func removeStreamReferenceSurely(_ name: ByteString) throws(RepositoryError) -> Bool {
        if try removeReference(Layout.streamReferences, name) { return true }
        let path = Layout.streamReferences + "/" + name
        if let directory = Self.parents(of: path).last, try status(at: directory)?.kind == .directory { try syncDirectory(directory) }
        return false
    }

    @discardableResult
    public func removeImageReference(_ name: ByteString) throws(RepositoryError) -> Bool {
        try removeReference(Layout.imageReferences, name)
    }

    private func reference(_ category: ByteString, _ name: ByteString) throws(RepositoryError) -> Reference? {
        try Layout.checkReferenceName(name)
        return try readLink(category + "/" + name).map { Reference(name: name, target: $0) }
    }

    private func removeReference(_ category: ByteString, _ name: ByteString) throws(RepositoryError) -> Bool {
        try requireWritable()
        try Layout.checkReferenceName(name)
        let path = category + "/" + name
        do throws(SystemError) {
            guard let status = try root.statusIfPresent(at: path) else { return false }
            guard status.kind == .symbolicLink else { throw SystemError("remove", path, .invalidArgument) }
            try root.unlink(at: path)
        } catch {
            if error.errno == .invalidArgument { throw .invalidLink(path, .notReference) }
            guard error.errno == .noEntry else { throw .system(error) }
            return false
        }
        // A removed tag must not come back after garbage collection has removed its stream.
        if let directory = Self.parents(of: path).last { try syncDirectory(directory) }
        return true
    }

    private func references(_ category: ByteString, under prefix: ByteString) throws(RepositoryError) -> [Reference] {
        if !prefix.isEmpty { try Layout.checkReferenceName(prefix) }
        let top = prefix.isEmpty ? category : category + "/" + prefix
        var found: [Reference] = []
        try walkReferences(top) { (path, kind) throws(RepositoryError) in
            guard !path.hasPrefix(Layout.leaseReferences + "/"), kind == .symbolicLink, let target = try readLink(path) else { return }
            found.append(Reference(name: ByteString(Array(path.bytes.dropFirst(top.count + 1))), target: target))
        }
        return found.sorted { $0.name < $1.name }
    }

    /// Calls `body` with every entry below a directory that is not a directory itself. Symbolic links are not followed.
    func walkReferences(
        _ top: ByteString, _ body: (ByteString, FileKind) throws(RepositoryError) -> Void
    ) throws(RepositoryError) {
        // A list instead of recursion: only the longest path limits the depth.
        var pending = [top]
        while let next = pending.popLast() {
            for entry in try entries(of: next) ?? [] {
                let path = next + "/" + entry.name
                var kind = entry.kind
                if kind == .unknown {
                    guard let status = try system({ () throws(SystemError) in try root.statusIfPresent(at: path) }) else { continue }
                    kind = status.kind
                }
                if kind == .directory { pending.append(path) } else { try body(path, kind) }
            }
        }
    }
}
