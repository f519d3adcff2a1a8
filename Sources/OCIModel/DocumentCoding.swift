import ComposefsBytes
import ComposefsHashing

// How programs store what documents say. The digest of a document is that of its bytes, so `Manifest` and `ImageConfig` are coded as their text and
// are decoded as strictly as they are parsed.

/// Coded with the names of the image specification (image-index.md, `platform`).
extension Platform: Codable {
    private enum CodingKeys: String, CodingKey {
        case os, architecture, variant
        case osVersion = "os.version"
        case osFeatures = "os.features"
    }

    public init(from decoder: any Decoder) throws {
        let members = try decoder.container(keyedBy: CodingKeys.self)
        self.init(
            os: try members.decodeIfPresent(String.self, forKey: .os) ?? "",
            architecture: try members.decodeIfPresent(String.self, forKey: .architecture) ?? "",
            variant: try members.decodeIfPresent(String.self, forKey: .variant),
            osVersion: try members.decodeIfPresent(String.self, forKey: .osVersion),
            osFeatures: try members.decodeIfPresent([String].self, forKey: .osFeatures) ?? [])
    }

    public func encode(to encoder: any Encoder) throws {
        var members = encoder.container(keyedBy: CodingKeys.self)
        try members.encode(os, forKey: .os)
        try members.encode(architecture, forKey: .architecture)
        try members.encodeIfPresent(variant, forKey: .variant)
        try members.encodeIfPresent(osVersion, forKey: .osVersion)
        if !osFeatures.isEmpty { try members.encode(osFeatures, forKey: .osFeatures) }
    }
}

/// Coded as in documents (descriptor.md). Embedded data that the digest and the size do not describe is refused.
extension Descriptor: Codable {
    private enum CodingKeys: String, CodingKey { case mediaType, digest, size, platform, annotations, artifactType, urls, data }

    public init(from decoder: any Decoder) throws {
        let members = try decoder.container(keyedBy: CodingKeys.self)
        self.init(
            mediaType: try members.decodeIfPresent(String.self, forKey: .mediaType) ?? "",
            digest: try members.decode(ContentDigest.self, forKey: .digest), size: try members.decode(UInt64.self, forKey: .size),
            platform: try members.decodeIfPresent(Platform.self, forKey: .platform),
            annotations: try members.decodeIfPresent([String: String].self, forKey: .annotations) ?? [:],
            artifactType: try members.decodeIfPresent(String.self, forKey: .artifactType),
            urls: try members.decodeIfPresent([String].self, forKey: .urls) ?? [])
        guard size <= UInt64(Int64.max) else {
            throw DecodingError.dataCorruptedError(forKey: .size, in: members, debugDescription: "the size is not below 2^63")
        }
        guard let text = try members.decodeIfPresent(String.self, forKey: .data) else { return }
        guard let data = Base64.decode(text.utf8), UInt64(data.count) == size, ContentDigest.of(data, digest.algorithm) == digest else {
            throw DecodingError.dataCorruptedError(
                forKey: .data, in: members, debugDescription: "the data is not base64 of what the digest and the size describe")
        }
        self.data = data
    }

    public func encode(to encoder: any Encoder) throws {
        var members = encoder.container(keyedBy: CodingKeys.self)
        if !mediaType.isEmpty { try members.encode(mediaType, forKey: .mediaType) }
        try members.encode(digest, forKey: .digest)
        try members.encode(size, forKey: .size)
        try members.encodeIfPresent(platform, forKey: .platform)
        if !annotations.isEmpty { try members.encode(annotations, forKey: .annotations) }
        try members.encodeIfPresent(artifactType, forKey: .artifactType)
        if !urls.isEmpty { try members.encode(urls, forKey: .urls) }
        try members.encodeIfPresent(data.map { Base64.encode($0) }, forKey: .data)
    }
}

/// Coded as the text of the document.
extension ImageConfig: Codable {
    public init(from decoder: any Decoder) throws {
        let text = try decoder.singleValueContainer().decode(String.self)
        try self.init(parsing: Array(text.utf8))
    }

    public func encode(to encoder: any Encoder) throws { try encoder.encode(text: String(decoding: bytes, as: UTF8.self)) }
}

/// Coded as the text of the document with its type, which the document itself need not state.
extension Manifest: Codable {
    private enum CodingKeys: String, CodingKey { case mediaType, document }

    public init(from decoder: any Decoder) throws {
        let members = try decoder.container(keyedBy: CodingKeys.self)
        try self.init(
            parsing: Array(try members.decode(String.self, forKey: .document).utf8),
            mediaType: try members.decode(String.self, forKey: .mediaType))
    }

    public func encode(to encoder: any Encoder) throws {
        var members = encoder.container(keyedBy: CodingKeys.self)
        try members.encode(mediaType, forKey: .mediaType)
        try members.encode(String(decoding: bytes, as: UTF8.self), forKey: .document)
    }
}
