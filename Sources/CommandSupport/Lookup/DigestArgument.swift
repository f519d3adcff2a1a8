package import ComposefsBytes
package import ComposefsHashing
import ComposefsOCI

/// A digest from the command line.
package func contentDigest(_ text: ByteString) throws -> ContentDigest {
    guard let digest = text.utf8Text.flatMap({ ContentDigest($0) }) else {
        throw CommandError("\"\(text.withoutSecrets)\" is no digest; one is written sha256: and 64 lower-case hex digits")
    }
    return digest
}
