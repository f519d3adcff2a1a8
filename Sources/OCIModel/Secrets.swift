package import ComposefsBytes

/// Removes secrets from a reference or URL for a message: the user and password, and the query of a URL, which may be signed. A password
/// may contain any character, so too much of a reference is removed rather than too little.
package func hidingSecrets(_ text: String) -> String {
    var (scheme, rest) = ("", Substring(text))
    if let known = ["http://", "https://", "docker://", "oci://"].first(where: { text.lowercased().hasPrefix($0) }) {
        (scheme, rest) = (String(text.prefix(known.count)), text.dropFirst(known.count))
        if known.hasPrefix("http"), let query = rest.firstIndex(of: "?") { rest = rest[..<query] }
    } else if ["oci:", "oci-archive:", "docker-archive:", "dir:", "containers-storage:"].contains(where: { text.hasPrefix($0) }) {
        // A path, which may contain anything.
        return text
    }
    // There may be another @ before the one of a digest.
    var end = rest.lastIndex(of: "@")
    if let at = end, isDigestLike(rest[rest.index(after: at)...]) { end = rest[..<at].lastIndex(of: "@") }
    // After a user comes a host with a path. Nothing else after an `@` contains a slash.
    guard let end, isUser(rest[..<end], isLikely: !scheme.isEmpty || rest[end...].contains("/")) else { return scheme + rest }
    return scheme + "***" + rest[end...]
}

/// Whether the text before an `@` is a user, and not a host with a path.
private func isUser(_ text: Substring, isLikely: Bool) -> Bool {
    guard let slash = text.firstIndex(of: "/") else { return isLikely || text.contains(":") }
    let first = text[..<slash]
    if first.contains("@") { return true }
    // `HOST:PORT/NAME` is a host with a path; `USER:PASS/WORD` is not.
    guard let colon = first.lastIndex(of: ":") else { return false }
    return UInt16(first[first.index(after: colon)...]) == nil
}

private func isDigestLike(_ text: Substring) -> Bool {
    ["sha256:", "sha384:", "sha512:", "sha1:", "md5:", "blake3:"].contains { text.hasPrefix($0) } && !text.contains("/")
}

extension ByteString {
    /// The same for bytes that may not be UTF-8.
    package var withoutSecrets: ByteString { utf8Text.map { ByteString(hidingSecrets($0)) } ?? self }
}
