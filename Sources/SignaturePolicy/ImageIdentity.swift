public import ComposefsBytes
internal import ComposefsHashing
public import ComposefsOCIModel

/// What an image is to a policy: its transport, the scopes that apply to it, and the reference that signatures are compared with.
public struct ImageIdentity: Hashable, Sendable {
    /// The name of the transport: `docker`, `oci`, `dir`, …; empty if it has none, so that only the global default applies.
    public let transport: String
    /// The scopes, the most specific first.
    public let scopes: [ByteString]
    /// The image's reference in a registry; nil for a transport without such references.
    public let reference: StatedReference?

    public init(transport: String, scopes: [ByteString], reference: StatedReference?) {
        self.transport = transport
        self.scopes = scopes
        self.reference = reference
    }

    /// An image of which nothing is known.
    public static let unknown = ImageIdentity(transport: "", scopes: [], reference: nil)

    /// An image in a registry. Of a reference with a tag and a digest, the digest counts, which names the image.
    ///
    /// The scopes are those of `docker`: the reference; its repository, with less and less components down to the host and its port; and `*.DOMAIN`
    /// for each domain above the host.
    public static func registry(_ reference: RegistryReference) -> ImageIdentity {
        let stated = StatedReference(
            domain: reference.domain, path: reference.name, tag: reference.digest == nil ? reference.tag : nil, digest: reference.digest)
        let host = reference.domain.prefix { $0 != ":" }
        let domains = host.utf8.indices.filter { host.utf8[$0] == UInt8(ascii: ".") }.map { "*" + host[$0...] }
        return ImageIdentity(
            transport: "docker", scopes: ([stated.text] + parents(stated.name) + domains).map { ByteString($0) }, reference: stated)
    }

    /// The name, and what is left of it without its last components.
    private static func parents(_ name: String) -> [String] {
        let components = name.split(separator: "/", omittingEmptySubsequences: false)
        return components.indices.reversed().map { components[...$0].joined(separator: "/") }
    }

    /// An image in a file or directory: `oci`, `oci-archive`, `dir`. The scopes are the path and the directories above it, without the root.
    ///
    /// - Parameter path: absolute, without symbolic links; nil if the file has no name.
    public static func file(_ path: ByteString?, transport: String) -> ImageIdentity {
        var scopes: [ByteString] = []
        var path = path ?? ""
        while path.hasPrefix("/"), path.count > 1 {
            scopes.append(path)
            guard let slash = path.bytes.lastIndex(of: UInt8(ascii: "/")) else { break }
            path = ByteString(path.bytes[..<slash])
        }
        return ImageIdentity(transport: transport, scopes: scopes, reference: nil)
    }

    /// An image in a docker archive, which has no scopes.
    public static let dockerArchive = ImageIdentity(transport: "docker-archive", scopes: [], reference: nil)

    /// An image in the storage of podman on this machine.
    ///
    /// The scopes begin with `[overlay@ROOT]`: name and ID; the name; the name without a digest beside the tag; the repository, with less and less
    /// components; the storage. The last is `[ROOT]`.
    ///
    /// - Parameters:
    ///   - root: the directory of the storage.
    ///   - name: the full name by which the image was found; nil if it was found by its ID.
    ///   - id: the ID, if the reference states it.
    public static func storage(root: ByteString, name: String?, id: String?) -> ImageIdentity {
        let store = "[overlay@" + root + "]"
        let reference = name.flatMap { StatedReference(parsing: $0) }
        var images: [String] = []
        if let reference {
            if let id { images.append(reference.text + "@" + id) }
            images.append(reference.text)
            if let tag = reference.tag, reference.digest != nil { images.append("\(reference.name):\(tag)") }
            images += parents(reference.name)
        } else if let id {
            images.append("@" + id)
        }
        images.append("")
        return ImageIdentity(
            transport: "containers-storage", scopes: images.map { store + ByteString($0) } + ["[" + root + "]"], reference: reference)
    }

    /// A scope of the policy as it is compared: hosts are in lower case, as in parsed references.
    static func folded(_ scope: ByteString, transport: String) -> ByteString {
        guard transport == "docker" else { return scope }
        let end = scope.bytes.firstIndex(of: UInt8(ascii: "/")) ?? scope.bytes.endIndex
        return ByteString(scope.bytes[..<end].map { (0x41...0x5a).contains($0) ? $0 + 0x20 : $0 } + scope.bytes[end...])
    }
}

/// An image reference as it is stated in a policy, a signature or a command: nothing is added to it but the registry of short names.
public struct StatedReference: Hashable, Sendable, CustomStringConvertible {
    private let domain: String
    private let path: String
    /// Nil if the text has none.
    let tag: String?
    let digest: ContentDigest?

    init(domain: String, path: String, tag: String?, digest: ContentDigest?) {
        self.domain = domain
        self.path = path
        self.tag = tag
        self.digest = digest
    }

    /// Nil if the text is not a reference.
    public init?(parsing text: String) {
        guard let parsed = try? RegistryReference(parsing: text) else { return nil }
        // A tag is only what the text has: the parser adds one.
        let name = text.utf8.prefix { $0 != UInt8(ascii: "@") }
        let last = name.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).last ?? name
        let isTagged = last.contains(UInt8(ascii: ":"))
        self.init(domain: parsed.domain, path: parsed.name, tag: isTagged ? parsed.tag : nil, digest: parsed.digest)
    }

    /// `HOST[:PORT]/NAME`
    var name: String { "\(domain)/\(path)" }
    var isNameOnly: Bool { tag == nil && digest == nil }
    public var text: String { name + (tag.map { ":" + $0 } ?? "") + (digest.map { "@\($0)" } ?? "") }
    public var description: String { text }

    /// Whether the text is a host, or the beginning of a repository's full name.
    static func isPrefix(_ text: String) -> Bool {
        guard let slash = text.utf8.firstIndex(of: UInt8(ascii: "/")) else { return RegistryReference.isHost(text) }
        let path = String(text[text.utf8.index(after: slash)...])
        guard RegistryReference.isHost(String(text[..<slash])), let parsed = StatedReference(parsing: "host.invalid/" + path) else {
            return false
        }
        return parsed.isNameOnly && parsed.path == path
    }
}

extension ScopeFault {
    /// Nil if the scope can belong to the transport. Those of transports that are not known here are not checked.
    init?(of scope: String, transport: String) {
        let fault: ScopeFault?
        switch transport {
        case "dir", "oci", "oci-archive", "sif": fault = Self.ofPath(scope)
        case "docker-archive", "tarball": fault = .onlyDefault
        case "docker-daemon": fault = ContentDigest(scope) == nil ? nil : .digest
        case "containers-storage": fault = Self.isStorage(scope) ? nil : .notStorage
        case "atomic": fault = Self.isStream(scope) ? nil : .notRegistryScope
        default: fault = nil
        }
        guard let fault else { return nil }
        self = fault
    }

    private static func ofPath(_ scope: String) -> ScopeFault? {
        guard scope.utf8.first == UInt8(ascii: "/") else { return .notAbsolute }
        guard scope.utf8.count > 1 else { return .root }
        let components = scope.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).dropFirst().map { Array($0) }
        let isClean = components.allSatisfy { !$0.isEmpty && $0 != Array(".".utf8) && $0 != Array("..".utf8) }
        return isClean ? nil : .notCanonical
    }

    /// `[DRIVER@ROOT]` or `[ROOT]`, and then nothing or an image: `NAME[:TAG][@DIGEST][@ID]`.
    private static func isStorage(_ scope: String) -> Bool {
        guard scope.utf8.first == UInt8(ascii: "["), let end = scope.utf8.firstIndex(of: UInt8(ascii: "]")) else { return false }
        let store = scope[scope.utf8.index(after: scope.startIndex)..<end]
        var root = store
        if let at = store.utf8.firstIndex(of: UInt8(ascii: "@")) {
            guard at > store.startIndex else { return false }
            root = store[store.utf8.index(after: at)...]
        }
        guard root.utf8.first == UInt8(ascii: "/") else { return false }
        let image = scope[scope.utf8.index(after: end)...]
        let parts = image.split(separator: "@", maxSplits: 2, omittingEmptySubsequences: false).map(String.init)
        switch parts.count {
        case 2: return isID(parts[1]) || ContentDigest(parts[1]) != nil
        case 3: return ContentDigest(parts[1]) != nil && isID(parts[2])
        default: return true
        }
    }

    private static func isID(_ text: String) -> Bool {
        text.utf8.count == 64 && text.utf8.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
    }

    private static func isStream(_ scope: String) -> Bool {
        let components = scope.split(separator: "/", omittingEmptySubsequences: false)
        guard components.count <= 3 else { return false }
        // Only the host may have a port, and only the stream a tag.
        return components.enumerated().allSatisfy { index, component in
            let colons = component.utf8.count { $0 == UInt8(ascii: ":") }
            return index == 0 || colons <= (index == 2 ? 1 : 0)
        }
    }
}
