import Bytes
public import Hashing

/// Names a blob by its content (image-spec descriptor.md).
public struct Descriptor: Hashable, Sendable {
    public var mediaType: String
    public var digest: ContentDigest
    /// In bytes, at most 2^63-1.
    public var size: UInt64
    public var platform: Platform?
    public var annotations: [String: String]
    public var artifactType: String?
    public var urls: [String]
    /// The blob itself, where the document carries it; its size and digest were checked.
    public var data: [UInt8]?

    public init(
        mediaType: String, digest: ContentDigest, size: UInt64, platform: Platform? = nil, annotations: [String: String] = [:],
        artifactType: String? = nil, urls: [String] = [], data: [UInt8]? = nil
    ) {
        self.mediaType = mediaType
        self.digest = digest
        self.size = size
        self.platform = platform
        self.annotations = annotations
        self.artifactType = artifactType
        self.urls = urls
        self.data = data
    }

    init(_ fields: DocumentFields) throws(OCIError) {
        mediaType = try fields.requiredString("mediaType")
        guard !mediaType.isEmpty else { throw fields.malformed("mediaType", "is empty") }
        digest = try fields.digest("digest")
        size = try fields.size("size")
        platform = if let platform = try fields.fields("platform") { try Platform(platform) } else { nil }
        annotations = try fields.map("annotations")
        artifactType = try fields.string("artifactType")
        urls = try fields.strings("urls") ?? []
        if let text = try fields.string("data") {
            guard let data = Base64.decode(text.utf8) else { throw fields.malformed("data", "is not base64") }
            guard UInt64(data.count) == size, ContentDigest.of(data, digest.algorithm) == digest else {
                throw fields.malformed("data", "is not the blob that the descriptor names")
            }
            self.data = data
        }
    }

    /// A signature or provenance record beside the images of an index, not an image.
    var isAttestation: Bool { annotations["vnd.docker.reference.type"] != nil || platform?.isUnknown == true }
}

/// RFC 4648, section 4: with padding, nothing between.
enum Base64 {
    private static let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

    static func encode(_ bytes: [UInt8]) -> String {
        var text: [UInt8] = []
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = bytes[start..<min(start + 3, bytes.count)]
            let bits = group.reduce(UInt32(0)) { $0 << 8 | UInt32($1) } << (8 * UInt32(3 - group.count))
            for place in 0..<4 {
                text.append(place <= group.count ? digits[Int(bits >> (18 - 6 * UInt32(place)) & 63)] : UInt8(ascii: "="))
            }
        }
        return String(decoding: text, as: UTF8.self)
    }

    static func decode(_ text: some Collection<UInt8>) -> [UInt8]? {
        guard text.count % 4 == 0 else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.count / 4 * 3)
        var (bits, count, padding) = (UInt32(0), 0, 0)
        for character in text {
            let value: UInt8
            switch character {
            case 0x41...0x5a: value = character - 0x41
            case 0x61...0x7a: value = character - 0x61 + 26
            case 0x30...0x39: value = character - 0x30 + 52
            case UInt8(ascii: "+"): value = 62
            case UInt8(ascii: "/"): value = 63
            case UInt8(ascii: "="):
                padding += 1
                value = 0
            default: return nil
            }
            guard padding == 0 || character == UInt8(ascii: "=") else { return nil }
            bits = bits << 6 | UInt32(value)
            count += 1
            if count % 4 == 0 {
                bytes.append(UInt8(truncatingIfNeeded: bits >> 16))
                bytes.append(UInt8(truncatingIfNeeded: bits >> 8))
                bytes.append(UInt8(truncatingIfNeeded: bits))
                bits = 0
            }
        }
        guard padding <= 2 else { return nil }
        let unused = bytes.suffix(padding)
        guard unused.allSatisfy({ $0 == 0 }) else { return nil }
        bytes.removeLast(padding)
        return bytes
    }
}
