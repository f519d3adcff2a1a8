import ComposefsBytes
import ComposefsImageStore

/// The form in which the stream of a kept disk has the exceptions of its stack: for each one `KIND:PATH` and a zero byte.
enum StackExceptionText {
    /// The most bytes that a reader takes.
    static let limit = 16 << 20

    static func encode(_ exceptions: [StackException]) -> [UInt8] {
        exceptions.flatMap { Array("\($0.kind.rawValue):".utf8) + $0.path.bytes + [0] }
    }

    /// Nil if the text has another form.
    static func decode(_ text: [UInt8]) -> [StackException]? {
        guard let last = text.last else { return [] }
        guard last == 0 else { return nil }
        var found: [StackException] = []
        for line in text.dropLast().split(separator: 0, omittingEmptySubsequences: false) {
            guard let colon = line.firstIndex(of: UInt8(ascii: ":")), let name = ByteString(Array(line[..<colon])).utf8Text,
                let kind = StackException.Kind(rawValue: name)
            else { return nil }
            found.append(StackException(kind: kind, path: ByteString(Array(line[(colon + 1)...]))))
        }
        return found
    }
}
