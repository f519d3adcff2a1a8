import ComposefsBytes
public import ComposefsHashing

/// A reference to an image in a registry, in the grammar of the distribution project: `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`.
///
/// References are normalised: short names are completed as in other container tools, so `alpine` is `docker.io/library/alpine:latest`.
public struct RegistryReference: Hashable, Sendable, CustomStringConvertible {
    /// Host and port in lower case: `docker.io`, `localhost:5000`, `[::1]:5000`.
    public let domain: String
    /// The repository: `library/alpine`.
    public let name: String
    /// `latest` if the reference had neither tag nor digest.
    public let tag: String?
    public let digest: ContentDigest?
    /// The repository as written, if the reference had no registry: `alpine`, `team/app`. It refers to Docker Hub unless a registry
    /// configuration has an alias for it or other registries to search. It is not part of the reference's identity.
    public let shortName: String?

    /// The canonical spelling of the reference. Parsing it gives an equal value.
    public var canonical: String {
        "\(domain)/\(name)" + (tag.map { ":" + $0 } ?? "") + (digest.map { "@\($0)" } ?? "")
    }

    public var description: String { canonical }

    public static func == (left: RegistryReference, right: RegistryReference) -> Bool {
        left.domain == right.domain && left.name == right.name && left.tag == right.tag && left.digest == right.digest
    }

    public func hash(into hasher: inout Hasher) {
        hasher.combine(domain)
        hasher.combine(name)
        hasher.combine(tag)
        hasher.combine(digest)
    }

    /// This reference's tag and digest in another repository, `HOST[:PORT]/NAME`.
    package func inRepository(_ repository: String) throws(OCIError) -> RegistryReference {
        try RegistryReference(parsing: repository + (tag.map { ":" + $0 } ?? "") + (digest.map { "@\($0)" } ?? ""))
    }

    /// The same reference without a short name, so that it refers to Docker Hub.
    package var qualified: RegistryReference {
        RegistryReference(domain: domain, name: name, tag: tag, digest: digest, shortName: nil)
    }

    private init(domain: String, name: String, tag: String?, digest: ContentDigest?, shortName: String?) {
        self.domain = domain
        self.name = name
        self.tag = tag
        self.digest = digest
        self.shortName = shortName
    }

    /// The length of host and name together, in bytes.
    private static let lengthLimit = 255

    public init(parsing text: String) throws(OCIError) {
        let invalid = { (fault: OCIError.ReferenceFault) in OCIError.invalidReference(ByteString(text), fault) }
        var rest = Array(text.utf8)[...]
        guard !rest.isEmpty else { throw invalid(.empty) }
        var digest: ContentDigest?
        if let at = rest.firstIndex(of: UInt8(ascii: "@")) {
            let digestText = String(decoding: rest[(at + 1)...], as: UTF8.self)
            guard let parsed = ContentDigest(digestText) else { throw invalid(.notDigest) }
            digest = parsed
            rest = rest[..<at]
        }
        // The last colon begins a tag, unless a slash follows: then it begins a port.
        var tagText: String?
        if let colon = rest.lastIndex(of: UInt8(ascii: ":")), !rest[colon...].contains(UInt8(ascii: "/")),
            !rest[colon...].contains(UInt8(ascii: "]"))
        {
            let bytes = rest[(colon + 1)...]
            guard Self.isTag(bytes) else {
                throw invalid(.notTag)
            }
            tagText = String(decoding: bytes, as: UTF8.self)
            rest = rest[..<colon]
        }
        tag = tagText ?? (digest == nil ? "latest" : nil)
        var (domainBytes, nameBytes): (ArraySlice<UInt8>?, ArraySlice<UInt8>) = (nil, rest)
        if let slash = rest.firstIndex(of: UInt8(ascii: "/")), Self.looksLikeDomain(rest[..<slash]) {
            (domainBytes, nameBytes) = (rest[..<slash], rest[(slash + 1)...])
        }
        if let domainBytes, !Self.isDomain(domainBytes) { throw invalid(.notHost) }
        guard Self.isName(nameBytes) else {
            let hasUpper = nameBytes.contains { (0x41...0x5a).contains($0) }
            throw invalid(hasUpper ? .upperCase : .notReference)
        }
        var name = String(decoding: nameBytes, as: UTF8.self)
        var domain = domainBytes.map { String(decoding: $0, as: UTF8.self).lowercased() } ?? "docker.io"
        if domain == "index.docker.io" || domain == "registry-1.docker.io" { domain = "docker.io" }
        if domain == "docker.io", !name.utf8.contains(UInt8(ascii: "/")) {
            // Other tools take a short name of this form for an image ID.
            guard domainBytes != nil || !Self.isImageID(nameBytes) else { throw invalid(.imageID) }
            name = "library/" + name
        }
        guard domain.utf8.count + 1 + name.utf8.count <= Self.lengthLimit else { throw invalid(.tooLong(limit: Self.lengthLimit)) }
        self.domain = domain
        self.name = name
        self.digest = digest
        shortName = domainBytes == nil ? String(decoding: nameBytes, as: UTF8.self) : nil
    }

    /// Whether the text has the form `HOST[:PORT]`, with which references begin.
    package static func isHost(_ text: String) -> Bool { isDomain(Array(text.utf8)[...]) }

    /// `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`
    static func isTag(_ bytes: some Collection<UInt8>) -> Bool {
        guard let first = bytes.first, bytes.count <= 128, ByteClass.isAlphanumeric(first) || first == UInt8(ascii: "_") else {
            return false
        }
        return bytes.allSatisfy {
            ByteClass.isAlphanumeric($0) || $0 == UInt8(ascii: "_") || $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "-")
        }
    }

    /// The first component is a host if it cannot begin a name, or is `localhost`.
    private static func looksLikeDomain(_ bytes: ArraySlice<UInt8>) -> Bool {
        bytes.contains { $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: ":") } || bytes.elementsEqual("localhost".utf8)
    }

    private static func isDomain(_ bytes: ArraySlice<UInt8>) -> Bool {
        var host = bytes
        if bytes.first == UInt8(ascii: "[") {
            guard let end = bytes.firstIndex(of: UInt8(ascii: "]")) else { return false }
            let address = bytes[(bytes.startIndex + 1)..<end]
            let isAddress = address.allSatisfy {
                $0 == UInt8(ascii: ":") || Hex.value(of: $0 | 0x20) != nil && ByteClass.isAlphanumeric($0)
            }
            guard address.count >= 2, address.contains(UInt8(ascii: ":")), isAddress else { return false }
            let rest = bytes[(end + 1)...]
            return rest.isEmpty || rest.first == UInt8(ascii: ":") && isPort(rest.dropFirst())
        }
        if let colon = bytes.firstIndex(of: UInt8(ascii: ":")) {
            guard isPort(bytes[(colon + 1)...]) else { return false }
            host = bytes[..<colon]
        }
        return host.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false).allSatisfy { label in
            guard let first = label.first, let last = label.last else { return false }
            return ByteClass.isAlphanumeric(first) && ByteClass.isAlphanumeric(last)
                && label.allSatisfy { ByteClass.isAlphanumeric($0) || $0 == UInt8(ascii: "-") }
        }
    }

    private static func isPort(_ bytes: ArraySlice<UInt8>) -> Bool {
        guard (1...5).contains(bytes.count), bytes.allSatisfy({ (0x30...0x39).contains($0) }) else { return false }
        return UInt16(String(decoding: bytes, as: UTF8.self)) != nil
    }

    /// Whether the text consists of components of lower-case letters and digits, with single '.', one or two '_', or any number of '-'
    /// inside.
    private static func isName(_ bytes: ArraySlice<UInt8>) -> Bool {
        bytes.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).allSatisfy { component in
            var separator: [UInt8] = []
            var isFirst = true
            for byte in component {
                if ByteClass.isLowerAlphanumeric(byte) {
                    guard separator.isEmpty || !isFirst && isSeparator(separator) else { return false }
                    separator = []
                    isFirst = false
                } else {
                    separator.append(byte)
                }
            }
            return !isFirst && separator.isEmpty
        }
    }

    private static func isSeparator(_ bytes: [UInt8]) -> Bool {
        bytes == [UInt8(ascii: ".")] || bytes == [UInt8(ascii: "_")] || bytes == [UInt8(ascii: "_"), UInt8(ascii: "_")]
            || bytes.allSatisfy { $0 == UInt8(ascii: "-") }
    }

    private static func isImageID(_ bytes: ArraySlice<UInt8>) -> Bool { bytes.count == 64 && Hex.decode(bytes) != nil }
}
