package import ComposefsBytes

/// A reference or address for a message: without the user and password that were put into it, and without the query of an address, which may be
/// signed. Passwords may hold any character, so of a reference more is left out rather than less.
package func hidingSecrets(_ text: String) -> String {
    var (scheme, rest) = ("", Substring(text))
    if let known = ["http://", "https://", "docker://", "oci://"].first(where: { text.lowercased().hasPrefix($0) }) {
        (scheme, rest) = (String(text.prefix(known.count)), text.dropFirst(known.count))
        if known.hasPrefix("http"), let query = rest.firstIndex(of: "?") { rest = rest[..<query] }
    } else if ["oci:", "oci-archive:", "docker-archive:", "dir:", "containers-storage:"].contains(where: { text.hasPrefix($0) }) {
        // A path, which may hold anything.
        return text
    }
    // Before a digest there may be one more.
    var end = rest.lastIndex(of: "@")
    if let at = end, isDigestLike(rest[rest.index(after: at)...]) { end = rest[..<at].lastIndex(of: "@") }
    // What follows a user is a host with a path; nothing else that follows an `@` has a slash.
    guard let end, isUser(rest[..<end], isLikely: !scheme.isEmpty || rest[end...].contains("/")) else { return scheme + rest }
    return scheme + "***" + rest[end...]
}

/// Whether what stands before an `@` is a user and not a host with a path.
private func isUser(_ text: Substring, isLikely: Bool) -> Bool {
    guard let slash = text.firstIndex(of: "/") else { return isLikely || text.contains(":") }
    let first = text[..<slash]
    if first.contains("@") { return true }
    // `HOST:PORT/NAME` is a place; `USER:PASS/WORD` is none.
    guard let colon = first.lastIndex(of: ":") else { return false }
    return UInt16(first[first.index(after: colon)...]) == nil
}

private func isDigestLike(_ text: Substring) -> Bool {
    ["sha256:", "sha384:", "sha512:", "sha1:", "md5:", "blake3:"].contains { text.hasPrefix($0) } && !text.contains("/")
}

extension ByteString {
    /// The same for text that need not be UTF-8.
    package var withoutSecrets: ByteString { utf8Text.map { ByteString(hidingSecrets($0)) } ?? self }
}
